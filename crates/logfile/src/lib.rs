//! CRI log files: write, rotate, follow, parse.
