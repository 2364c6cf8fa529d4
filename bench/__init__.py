"""One command per figure that README or a help page quotes; results/ holds what they printed."""
