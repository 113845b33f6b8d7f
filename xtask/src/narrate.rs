//! What the tool says while it works.

use comfy_table::{Table, presets};
use std::time::Duration;

/// A part begins.
pub(crate) fn heading(text: &str) {
    println!("\n==> {text}");
}

/// One line within a part.
pub(crate) fn say(text: &str) {
    println!("    {text}");
}

/// A command that a user could type, before it is run.
pub(crate) fn command(line: &str) {
    println!("\n$ {line}");
}

/// A time for people.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// An empty table with these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(columns.to_vec());
    table
}
