"""Example workflows: written as Python in recipes.py, turned into files by make.py."""
