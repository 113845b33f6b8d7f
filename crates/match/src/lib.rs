//! The proof that the compiled original is what the shipped image contains
