//! The way of a patch: compile, match, diff, link, one report
