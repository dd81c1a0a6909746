"""Small Python programs with one wrong line: what repair, review and testing are taught on."""
