"""Picture and sound files to pixels and samples, checked and bounded before they are decoded."""
