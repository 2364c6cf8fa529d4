"""The notes of the workflows in Chinese: each stands beside the English one."""

NOTES = {
    "demo": (
        "## 图生视频的片段为什么不动\n\n按**运行**，什么都不用下载。**模拟泄漏**是一个小场景的理想模型，在高噪声水平它的答案有 70 % 是静止的图片：这就是泄漏，所以片段不动。"
        "同一个种子再经过**提前起点**（跳过那些水平）和**运动增益**（把缺少的运动补回来）各跑一次。\n\n"
        "试试：别的种子；leak 从 0（理想模型）到 0.95；start 和 gain。用自己的模型时，节点接在同样的位置：加载器和采样器之间。\n\n"
        "这是模拟：它说明节点做什么，不说明你的模型泄漏多少。那要问*泄漏探针*。"
    ),
    "demo_motion_gain": (
        "## 一个旋钮调运动，模型无需下载\n\n按**运行**。一个小的演示模型把同一张图片动画化两次，第二次的模型经过**运动增益**。\n\n"
        "试试：`gain`（1 = 原样，小于 1 更平静，太高会拖影）、`end`（越高作用越久）、种子、检查点 *healthy*。\n\n这是演示：数字只对这个模型成立。片段下方的数字统计的运动不会被闪烁骗过。"
    ),
    "demo_explicit": "## 演示，拆开的节点\n\n提前起点一个节点做的事，一步一步来：更低的调度，以及那个起点的均值和噪声。",
    "demo_start_sweep": (
        "## 哪个起点？看一看\n\n**起点扫描**用同样的种子，从几个起点把一张图片动画化，并排显示，下面写着运动分数和与图片的相似度。起点自己写：用逗号隔开的数字，或 `从:到:个数`。"
    ),
    "demo_condition": (
        "## 模型看到的图片\n\n另外两种对付照抄图片的办法：**TimeNoise 条件**给图片加噪，**低通条件**在最初几步去掉图片的细节。两者都在模型调用内部只作用于图片，都可以和提前起点一起用。\n\n"
        "在这个演示上都没有测量过：先比较，再相信。"
    ),
    "demo_other_starts": (
        "## 论文的表 2，亲自试试\n\n**起始噪声**生成 FrameInit 的起点（噪声里放进图片的低频）、渐进噪声或混合噪声；**FreeInit** 采样三遍，每一遍从上一遍的低频开始。论文里它们的运动都不如 Analytic-Init，FreeInit 还要两倍时间。\n\n"
        "和同一种子的工作流 *demo_explicit* 比较。"
    ),
    "demo_dial": (
        "## 要多少运动，就得到多少\n\n按**运行**。**运动拨盘**用这张图采样简短的预览，测量它们动多少，再找出*运动增益*达到 `want` 所需的最小设置。工作时预览在节点上播放；停止会保留目前最好的结果。\n\n"
        "下面的采样器接着用拨盘给出的模型。再运行一次：什么都不会测量第二遍。试试 *calm*、*as much as stays faithful*，或填一个 `amount`。"
    ),
    "demo_probe": (
        "## 这个模型该从哪里开始？\n\n按**运行**，什么都不用下载。**泄漏探针**给模型看几个真实片段的加噪版本，每个带自己的第一帧，找出在哪些噪声水平它预测的运动太少。结论写在图的上方，蓝线就在结论所说的地方，这个起点直接送进**提前起点**。\n\n"
        "模型是*模拟泄漏*：在 sigma `above` 以上泄漏 `leak`，所以可以看出探针找不找得到。试试 `leak` 0，或更少的片段。\n\n用自己的模型时，片段来自*准备片段*：至少 8 个，不要挑运动大的。"
    ),
    "svd_plain": "## SVD，原样\n\nComfyUI 自己的图，用来比较。把 `svd_xt.safetensors` 放进 `models/checkpoints`，再选一张图片。",
    "svd_early_start": (
        "## SVD + 提前起点\n\nComfyUI 自己的图，只多一个节点。预设从 sigma 100（论文的设置）开始，带 Analytic-Init。\n\n还是太静？把 `start_as` 设为 *sigma*，试 50、20。画面坏了？往回调高。"
    ),
    "svd_motion_gain": (
        "## SVD + 运动增益\n\nComfyUI 自己的图，只多一个节点：在高噪声水平，每次预测里的运动乘以 1.4。\n\n还是太静？1.6。太乱或拖影？1.2，或更低的 `end`。比原样更平静：小于 1。没有人在 SVD 上测量过：*实验性*。"
    ),
    "svd_analytic_init": "## SVD，拆开的节点\n\n**截断 Sigma 调度**把全部 25 步放在 sigma 100 以下。**Analytic-Init Latent** 生成那个起点的均值和噪声。两者都接 ComfyUI 的 SamplerCustomAdvanced。",
    "svd_probe": (
        "## 由探针决定起点\n\n1. 在**准备片段**里填一个视频文件夹的路径：16 个以上，是模型本来要做的那类视频，不要挑运动大的。只准备一次。\n"
        "2. **泄漏探针**找出模型在哪些噪声水平预测的运动太少，用一句话说出来，并建议一个起点；没有证据就保持普通起点。\n3. 你的图片从那里开始动画化。\n\n模型：`models/checkpoints` 里的 `svd_xt.safetensors`。"
    ),
    "svd_train": (
        "## 用自己的片段训练一个对付泄漏的 LoRA\n\n给**准备片段**一个视频文件夹，只准备一次。**TimeNoise 训练**生成 LoRA，采样器用你的图片试它。\n\n"
        "两者都可以停下，之后接着做。用同一种子训练 *naive* 来比较。保存的 LoRA 在 output/loras：把它移到 models/loras。"
    ),
    "estimate_moments": (
        "## 你自己的片段的数据矩\n\n1. 在**估计数据矩**里填一个视频文件夹的路径（几百个片段就够）。\n2. 按**运行**。图片显示每个通道的均值和离散程度：留意水印和黑边。\n3. **保存数据矩**把文件放到*加载数据矩*能列出的地方。\n\n停下了？再运行：从停下的地方接着做。\n\n"
        "模型：`models/checkpoints` 里的 `svd_xt.safetensors`；其他模型连同它的 VAE 也可以。"
    ),
    "dynamicrafter_plain": (
        "## DynamiCrafter 512，原样\n\n把官方的 `model.ckpt` 以 `dynamicrafter_512.ckpt` 的名字放进 `models/checkpoints`，再选一张图片。所有部分都来自这一个文件。\n\n1024：用它的检查点，1024 x 576，fps 10。插帧：用它的检查点，接一张结束图片，fps 5。"
    ),
    "dynamicrafter_early_start": (
        "## DynamiCrafter 512 + 提前起点\n\n原样的图，只多一个节点。预设从 T 的 0.96（论文的设置）开始，带 Analytic-Init。\n\n还是太静？把 `start_as` 设为 *fraction*，试 0.92。画面坏了？往回调高。"
    ),
    "dynamicrafter_analytic_init": (
        "## DynamiCrafter 512，拆开的节点\n\n**截断 Sigma 调度**把作者的 trailing 时间步放在 T 的 0.96 以下。**Analytic-Init Latent** 生成那个起点的均值和噪声，包含模型的动态缩放。"
    ),
    "dynamicrafter_both": (
        "## DynamiCrafter 512 + 两者\n\n**TimeNoise 条件**给模型看到的图片加噪，最初几步最多；**提前起点**跳过信息最少的那几步。*gentle* 用于官方模型。\n\n"
        "你有用 TimeNoise 微调过的检查点（论文作者的，或你用 *TimeNoise 训练*做的）？加载它，把 mode 设为 *clean*：论文就是这样采样的，并配合提前起点。"
    ),
    "dynamicrafter_wrapper_noise": (
        "## 给旧的 wrapper\n\n这两个节点生成 *ComfyUI-DynamiCrafterWrapper*（另一个节点包，本包不需要它）的采样器所接的 `init_noise`，任何尺寸和帧数都可以。\n\n把它们复制到你的图里，接上 **init_noise**。单独存在时它们不运行任何东西。"
    ),
    "videocrafter1_early_start": (
        "## VideoCrafter1 + 提前起点\n\n把官方图生视频的 `model.ckpt` 以 `videocrafter1_i2v_512.ckpt` 的名字放进 `models/checkpoints`。预设从 T 的 0.96（论文的设置）开始；要看原样的模型，绕过提前起点。"
    ),
    "wan22_early_start": (
        "## Wan 2.2 14B + 提前起点\n\nComfyUI 的两阶段图，只在第一个采样器前多一个节点：只有高噪声阶段从更低处开始，交接点不变。\n\n"
        "论文没有研究 Wan，也没有人测量过最好的起点：0.95 是第一次尝试，`start` 1 并关闭 `analytic_init` 就是原样的图。还是太静？0.9。画面坏了？往回调高。"
    ),
    "wan22_motion_slider": (
        "## Wan 2.2 14B + 运动滑杆\n\nComfyUI 的两阶段图，只在第一个采样器前多一个节点：用 `gamma` 一个旋钮调运动量。0 就是原样的图，0.6 是作者的设置，小于 0 更平静。\n\n不增加任何计算，配合 CFG 1 的少步 LoRA 也能用。"
    ),
    "wan22_dial": (
        "## Wan 2.2 14B，四步：要多少运动\n\nComfyUI 的两阶段图，带四步 LoRA、CFG 1，用户觉得它太平静。**运动拨盘**通过两个阶段采样小预览，测量它们，再以达到 `want` 所需的最小设置交出两个模型。停止会保留目前最好的结果。\n\n"
        "*实验性*：制作时无法运行真正的 Wan。试试：`lever` 选 *motion slider*（Wan 的默认）和 *motion gain*，`preview_size` 0.5 和 1，`want` *more*。**运动预检**会指出还有什么可能让片段不动。"
    ),
    "wan21_alg": (
        "## Wan 2.1 + 自适应低通引导\n\n作者的设置：50 步的前五分之一，引导里的图片缩到 0.4，CFG 5，shift 5。这些步要计算三次而不是两次。\n\n需要 CFG 大于 1：配合 CFG 1 的少步 LoRA 它不起作用，并且会说明。"
    ),
    "wan21_alg_guider": "## 同样的方法，作为引导器\n\n**自适应低通引导器**放在 CFGGuider 的位置，接 SamplerCustomAdvanced。",
}
