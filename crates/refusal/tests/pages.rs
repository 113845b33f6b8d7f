//! `docs/refusals.md` explains every code of the table, and nothing else; `docs/authoring.md` has those of patches.

use kmend_refusal::{Code, Kind};

const PAGES: &str = include_str!("../../../docs/refusals.md");

/// What a patch's author can do.
const AUTHORING: &str = include_str!("../../../docs/authoring.md");

/// Heading and text of each section.
fn sections() -> Vec<(&'static str, &'static str)> {
    PAGES.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, ""))).collect()
}

#[test]
fn every_code_has_its_page_in_the_table_s_order() {
    let headings: Vec<&str> = sections().into_iter().map(|(heading, _)| heading).collect();
    let expected: Vec<String> = Code::ALL.iter().map(|code| format!("{code} {}", code.title())).collect();
    assert_eq!(headings, expected);
}

#[test]
fn authors_are_told_the_way_out_of_every_refusal_of_a_patch() {
    let of_a_patch = |code: &&Code| ["KM02", "KM03", "KM04", "KM05"].contains(&&code.name()[..4]);
    let refusals = Code::ALL.iter().filter(of_a_patch).filter(|code| code.kind() == Kind::Refusal);
    let rows: String = AUTHORING.lines().filter(|line| line.starts_with("| `KM")).collect();
    for code in refusals {
        assert!(rows.contains(code.name()), "docs/authoring.md has no row for {code}");
    }
}

#[test]
fn every_page_says_what_why_and_the_way_out() {
    for (heading, text) in sections() {
        let mut rest = text;
        for part in ["\n**What.** ", "\n**Why.** ", "\n**Way out.** "] {
            let (before, after) = rest.split_once(part).unwrap_or_else(|| panic!("{heading} has no {part}"));
            assert!(
                part == "\n**What.** " || before.trim().len() > 10,
                "{heading} says nothing before {part}"
            );
            rest = after;
        }
        assert!(rest.trim().len() > 10, "{heading} says no way out");
    }
}

#[test]
fn examples_are_as_the_command_prints_them() {
    let is_example = |line: &&str| {
        ["    refused[", "    error[", "    nothing to do["].iter().any(|s| line.starts_with(s))
    };
    let examples: Vec<&str> = PAGES.lines().filter(is_example).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let code = Code::ALL.iter().find(|code| example.contains(&format!("[{code}]")));
        let code = code.unwrap_or_else(|| panic!("no such code: {example}"));
        let label = match code.kind() {
            Kind::Refusal => "refused",
            Kind::Error => "error",
            Kind::Nothing => "nothing to do",
        };
        let head = format!("    {label}[{code}]: {}", code.title());
        assert!(example.starts_with(&head), "{example}\nshould begin with\n{head}");
        assert!(PAGES.contains(&format!("way out: {}", code.way_out())), "the way out of {code} is another");
    }
}
