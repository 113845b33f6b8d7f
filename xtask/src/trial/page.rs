//! The page for who approves a livepatch, in a real browser without a screen.

use super::{Bench, whole};
use anyhow::{Result, ensure};
use kmend_process::Command;
use kmend_store::Kernel;
use std::fs;
use std::path::Path;

/// A patch's name that a careless page would take for a part of itself.
const HOSTILE: &str = "<img src=x onerror=alert(1)>.patch";
/// What the page must forbid: a script that is not its own, and a request.
const INTRUDER: &str = "<script>document.title = 'taken'</script><img src='https://kernel.org/x.png'>";
/// Chromium's switches: no screen, no network of its own, and no sandbox, which root cannot have.
const SWITCHES: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
];

/// `kmend build --html`, and what the browser makes of the page.
pub(crate) fn run(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let patch = folder.path().join(HOSTILE);
    fs::copy(crate::root().join(whole::PATCH), &patch)?;
    let page = folder.path().join("page.html");
    let options = ["--name", "page", "--html", whole::text(&page)?];
    whole::build_with(bench, kernel, &[whole::text(&patch)?], &options, folder.path())?;

    let shown = show(&page)?;
    ensure!(shown.complaints.is_empty(), "the browser complains: {:?}", shown.complaints);
    let count = |text: &str| shown.document.matches(text).count();
    for (text, times) in [
        ("<article", 1),
        (">meminfo_proc_show</h3>", 1),
        ("<td class=\"old\">", 1),
        ("<td class=\"new\">", 1),
        ("<details class=\"same\">", 2),
        // The script has run: it shows what is of no use without it.
        ("id=\"tools\" hidden", 0),
        ("<img", 0),
        ("&lt;img src=x onerror=alert(1)&gt;.patch</td>", 1),
    ] {
        ensure!(count(text) == times, "{text} must be there {times} times, and is {}", count(text));
    }
    let module = blake3::hash(&fs::read(folder.path().join("livepatch-page.ko"))?).to_hex();
    ensure!(count(&module) == 1, "the module's hash {module} is not there");
    ensure!(count("VMALLOCChunk") > 0 && count("seq_put_decimal_ull_width") > 1, "no names of operands");
    forbids(&page)
}

/// A page with something foreign in it: the browser must stop that, and this trial must see that it did.
fn forbids(page: &Path) -> Result<()> {
    let changed = fs::read_to_string(page)?.replace("</body>", &format!("{INTRUDER}</body>"));
    ensure!(changed.contains(INTRUDER), "the page has no end of its body");
    let foreign = page.with_file_name("foreign.html");
    fs::write(&foreign, changed)?;
    let shown = show(&foreign)?;
    let complaint = |of: &str| shown.complaints.iter().any(|line| line.contains(of));
    ensure!(complaint("Executing inline script") && complaint("kernel.org"), "{:?}", shown.complaints);
    ensure!(!shown.document.contains("<title>taken"), "a foreign script has run");
    Ok(())
}

/// A page as the browser has it in the end.
struct Shown {
    document: String,
    /// What stands on the browser's console: errors of scripts, and what its policy stopped.
    complaints: Vec<String>,
}

fn show(page: &Path) -> Result<Shown> {
    let profile = tempfile::tempdir()?;
    let run = Command::new("chromium")
        .args(SWITCHES)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .run()?;
    let complaints =
        run.error_text().lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Ok(Shown { document: run.text(), complaints })
}
