//! The page's text: nothing of others becomes markup, and a large livepatch stays a page that can be opened.

use kmend_build::{KernelReport, ModuleReport, Note, NoteKind, PatchReport, Report, SCHEMA, UnitReport};
use kmend_explain::{Cause, Explanation, Function, Instruction, Piece, Place, Row, Status, Stretch};
use kmend_inspect::{Inspection, LivepatchSymbol, ObjectRelocations, PatchedFunction, PatchedObject};
use kmend_page::page;
use kmend_refusal::{Code, Refusal};

/// What must never reach the page as it is.
const HOSTILE: &str = "</td></style><script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";

fn report(text: &str) -> Report {
    Report {
        schema: SCHEMA,
        kmend: "0.0.0",
        name: text.into(),
        kernel: KernelReport {
            release: text.into(),
            version: text.into(),
            build_id: Some(text.into()),
            compiler: text.into(),
        },
        fixes: vec![],
        patches: vec![PatchReport { name: text.into(), blake3: "00".into(), subject: None }],
        units: vec![UnitReport {
            source: text.into(),
            object: text.into(),
            functions_matched: 1,
            functions_elsewhere: 0,
            functions: Vec::new(),
            variables: vec![text.into()],
            callbacks: Vec::new(),
            updates: Vec::new(),
        }],
        reach: None,
        hunks: vec![kmend_build::HunkReport {
            patch: text.into(),
            line: 3,
            file: text.into(),
            hunk: 1,
            header: text.into(),
            effect: kmend_build::Effect::Changed,
            functions: vec![text.into()],
            variables: vec![],
            why: Some(text.into()),
        }],
        symbols: Vec::new(),
        notes: vec![Note { kind: NoteKind::Advice, subject: text.into(), text: text.into() }],
        refusals: vec![
            Refusal::new(Code::ChangedData, text, text)
                .at(text, Some(3))
                .with_details(vec![text.into()])
                .into(),
        ],
        audit: None,
        recommended: None,
        module: Some(ModuleReport {
            engine: None,
            file: text.into(),
            blake3: "11".into(),
            size: 7,
            replace: true,
            signed_by: None,
        }),
    }
}

fn row(text: &str, differs: bool) -> Row {
    let place = Place { file: text.into(), line: 4, text: vec![text.into()], touched: differs };
    let instruction = |offset| Some(Instruction { offset, text: text.into(), place: Some(place.clone()) });
    Row { differs, original: instruction(0), patched: instruction(1) }
}

fn function(name: &str, rows: usize) -> Function {
    let rows = |differs| (0..rows).map(|_| row(name, differs)).collect::<Vec<_>>();
    let (changed, same) = (rows(true), rows(false));
    Function {
        unit: name.into(),
        object: name.into(),
        name: name.into(),
        original: Some(format!("{name}.old")),
        status: Status::Changed,
        causes: vec![Cause { text: name.into(), details: vec![name.into()] }],
        first: Vec::new(),
        first_touched: Vec::new(),
        pieces: vec![Piece {
            name: format!("{name}.cold"),
            original: changed.len(),
            patched: changed.len(),
            differing: changed.len(),
            stretches: vec![
                Stretch::Differs { count: changed.len() + 3, rows: changed },
                Stretch::Same { count: same.len(), rows: same },
                Stretch::Same { count: 99, rows: Vec::new() },
            ],
        }],
    }
}

fn inspection(text: &str) -> Inspection {
    let symbol = LivepatchSymbol { object: text.into(), name: text.into(), position: 2 };
    let patched = PatchedFunction { name: text.into(), position: 0, replacement: text.into() };
    Inspection {
        engine: None,
        interface: None,
        fixes: vec![],
        subjects: vec![],
        name: text.into(),
        kernel: text.into(),
        vermagic: text.into(),
        build_id: None,
        kmend: None,
        replace: Some(true),
        signed: false,
        depends: vec![text.into()],
        objects: vec![PatchedObject { name: text.into(), functions: vec![patched], callbacks: Vec::new() }],
        relocations: vec![ObjectRelocations { object: text.into(), count: 1, symbols: vec![symbol] }],
        exports: vec![text.into()],
        updates: vec![text.into()],
        stays: true,
        outlives: vec![text.into()],
        ends: vec![text.into()],
    }
}

#[test]
fn no_text_of_others_becomes_markup() {
    let explanation = |text: &str| Explanation { functions: vec![function(text, 2)] };
    let hostile = page(&report(HOSTILE), &explanation(HOSTILE), Some(&inspection(HOSTILE)));
    let plain = page(&report("x"), &explanation("x"), Some(&inspection("x")));
    let tags = |page: &str| page.matches('<').count();
    assert_eq!(tags(&hostile), tags(&plain), "the text adds elements");
    assert!(!hostile.contains(['\u{202e}', '\u{1b}']) && hostile.contains("\\u{202e}\\u{1b}[2J"));
    // Every place that shows the text was reached: as often as the harmless one, and no text stands in an attribute.
    assert!(hostile.matches("&lt;script&gt;alert(1)").count() > 40);
    assert!(!hostile.contains("<script>alert"));
}

#[test]
fn the_page_stands_alone() {
    let page = page(&report("x"), &Explanation::default(), None);
    for outside in ["http:", "https:", " src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(
        page.contains("default-src 'none'") && page.contains("<html lang=\"en\">") && page.contains("<main>")
    );
}

#[test]
fn what_is_left_out_is_said() {
    let page = page(&report("x"), &Explanation { functions: vec![function("f", 2)] }, None);
    assert!(
        page.contains("3 more lines are left out here")
            && page.contains("99 unchanged instructions, left out here")
    );
    assert!(page.contains("<details class=\"same\"><summary>2 unchanged instructions</summary>"));
}

#[test]
fn many_functions_are_folded_and_one_long_one_is_not() {
    let many = Explanation { functions: (0..300).map(|n| function(&format!("function_{n}"), 20)).collect() };
    let text = page(&report("x"), &many, None);
    assert_eq!(text.matches("<article").count(), 300);
    assert_eq!(text.matches("<details open").count(), 0);
    assert!(text.len() < 8_000_000, "{} bytes", text.len());
    let long = page(&report("x"), &Explanation { functions: vec![function("long", 5_000)] }, None);
    assert_eq!(long.matches("<details open").count(), 1);
    assert!(long.len() < 5_000_000, "{} bytes", long.len());
}
