//! The few colours, and how a reason looks.

use anstyle::{AnsiColor, Style};
use kmend_build::RefusalReport;
use kmend_explain::visible;
use kmend_refusal::Kind;
use std::fmt::Write;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default();

/// A text in a style. Where the stream takes no colours they are left out when it is printed.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A reason in words: code, title, subject, place, why, what shows it, and the way out.
pub(crate) fn reason(report: &RefusalReport) -> String {
    let refusal = &report.refusal;
    let (label, style) = match refusal.code.kind() {
        Kind::Refusal => ("refused", RED),
        Kind::Error => ("error", RED),
        Kind::Nothing => ("nothing to do", YELLOW),
    };
    let mut text = format!("{}: {}", paint(style.bold(), format!("{label}[{}]", refusal.code)), report.title);
    if !refusal.subject.is_empty() {
        let _ = write!(text, ": {}", paint(BOLD, visible(&refusal.subject)));
    }
    if let Some(place) = &refusal.place {
        let _ = write!(text, " ({place})");
    }
    text.push('\n');
    // A reason that only repeats the title says nothing more.
    for line in refusal.why.lines().filter(|line| *line != report.title) {
        let _ = writeln!(text, "  {line}");
    }
    for line in &refusal.details {
        let _ = writeln!(text, "  {} {line}", paint(DIM, "|"));
    }
    let _ = writeln!(text, "  {} {}", paint(GREEN, "way out:"), report.way_out);
    text
}

/// A note, as a line.
pub(crate) fn note(text: impl std::fmt::Display) -> String {
    format!("{} {text}\n", paint(DIM, "note"))
}

/// A size in bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_refusal::{Code, Refusal};

    #[test]
    fn a_reason_says_everything() {
        let refusal = Refusal::new(Code::ChangedData, "frobs", "its initial value changed")
            .at("mm/frob.c", Some(12))
            .with_details(vec!["was 1".into(), "is 2".into()]);
        let text = anstream::adapter::strip_str(&reason(&refusal.into())).to_string();
        let expected = format!(
            "refused[KM0401]: changed static data: frobs (mm/frob.c:12)\n  its initial value changed\n  | was 1\n  \
             | is 2\n  way out: {}\n",
            Code::ChangedData.way_out()
        );
        assert_eq!(text, expected);
    }
}
