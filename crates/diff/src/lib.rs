//! Which functions and data changed between two objects, and all they need
