//! What the guest of kills.sh wrote down, and whether kmend told the truth.
//!
//! The log has sections: a line `== WORDS`, and below it what belongs to it. A kill begins with
//! `== kill KIND MICROSECONDS WAY STATUS`. What is seen after it (`kernel`, `list`, `status`, `history`, `files`, `hashes`, `loading`)
//! comes before what is done (`mend KIND STATUS`), and what is seen at the end follows `then`.

use super::{Kind, Seen};
use serde_json::Value;
use std::collections::BTreeSet;

/// The livepatch that commands are killed over.
const ONE: &str = "livepatch_torture_one";
/// The livepatch that is installed all the time.
const TWO: &str = "livepatch_torture_two";
/// Complaints that are worth reading: what comes after has the same cause.
const MOST: usize = 12;

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// How many kills it has.
    pub(super) kills: usize,
    /// How many of them kmend did not tell the truth about, or did not mend.
    pub(super) bad: usize,
    /// The first of the reasons.
    pub(super) complaints: Vec<String>,
    pub(super) seen: Seen,
}

/// Reads the log of a guest.
pub(super) fn judge(log: &str, release: &str) -> Verdict {
    let sections = sections(log);
    let starts: Vec<usize> = (0..sections.len()).filter(|&at| sections[at].is("kill")).collect();
    let ends = starts.iter().skip(1).copied().chain([sections.len()]);
    let mut verdict = Verdict::default();
    for (start, end) in starts.iter().zip(ends) {
        let (header, rest) = (&sections[*start], &sections[start + 1..end]);
        verdict.kills += 1;
        let (seen, complaints) = judge_kill(header, rest, release);
        if let Some((kind, state)) = seen {
            *verdict.seen.0.entry(kind).or_default().entry(state).or_default() += 1;
        }
        verdict.bad += usize::from(!complaints.is_empty());
        let about = format!("{} {}", verdict.kills, header.words.join(" "));
        verdict.complaints.extend(complaints.into_iter().map(|why| format!("{about}: {why}")));
    }
    verdict.complaints.truncate(MOST);
    verdict
}

/// What a kill left, and what was wrong afterwards.
fn judge_kill(
    header: &Section<'_>,
    rest: &[Section<'_>],
    release: &str,
) -> (Option<(Kind, String)>, Vec<String>) {
    let (Some(kind), Some(way)) =
        (header.words.get(1).and_then(|word| Kind::named(word)), header.words.get(3))
    else {
        return (None, vec!["the guest's words are not understood".into()]);
    };
    let wanted = if *way == "again" { kind } else { kind.opposite() };
    let then = rest.iter().position(|section| section.is("then")).unwrap_or(rest.len());
    let (after, end) = rest.split_at(then);
    let mut complaints = Vec::new();
    let found = Found::read(after, release, &mut complaints);
    let state = match kind {
        Kind::Load | Kind::Unload => found.kernel.state(ONE).to_owned(),
        Kind::Install | Kind::Uninstall => found.set(),
    };
    for mend in after.iter().filter(|section| section.is("mend")) {
        let (command, status) = (mend.words.get(1).copied(), mend.words.get(2).copied());
        // While it is being disabled a load is refused, and is made again when that is over.
        let early = command == Some("load") && found.kernel.state(ONE) == "disabling";
        if !matches!(status, Some("0" | "3")) && !early {
            complaints.push(format!("{command:?} ends with {status:?} afterwards: {}", mend.text.trim()));
        }
    }
    let end = End::read(end);
    let reached = match wanted {
        Kind::Load => end.kernel.state(ONE) == "enabled",
        Kind::Unload => end.kernel.state(ONE) == "gone",
        // Both end with an install.
        Kind::Install | Kind::Uninstall => {
            let rubbish = end.rubbish(release, 2).into_iter();
            complaints.extend(rubbish.map(|what| format!("after the next install there is {what}")));
            true
        }
    };
    if !reached {
        let state = end.kernel.state(ONE);
        complaints.push(format!(
            "it was {}, and is {state} after `{}`",
            found.kernel.state(ONE),
            wanted.name()
        ));
    }
    (Some((kind, state)), complaints)
}

/// A line `== WORDS` and what is below it.
#[derive(Debug)]
struct Section<'a> {
    words: Vec<&'a str>,
    text: String,
}

impl Section<'_> {
    fn is(&self, name: &str) -> bool {
        self.words.first() == Some(&name)
    }
}

fn sections(log: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in log.lines() {
        if let Some(words) = line.strip_prefix("== ") {
            sections.push(Section { words: words.split(' ').collect(), text: String::new() });
        } else if let Some(last) = sections.last_mut() {
            last.text.push_str(line);
            last.text.push('\n');
        }
    }
    sections
}

/// The text below a section's name; nothing if it is not there.
fn text<'a>(sections: &'a [Section<'_>], name: &str) -> &'a str {
    sections.iter().find(|section| section.is(name)).map_or("", |section| section.text.as_str())
}

/// A livepatch by its name, whether it is enabled, and whether it is in transition.
type Livepatch = (String, bool, bool);

/// What the kernel itself shows.
#[derive(Debug, Default)]
struct Kernel {
    livepatches: BTreeSet<Livepatch>,
    modules: BTreeSet<String>,
}

impl Kernel {
    fn parse(text: &str) -> Kernel {
        let mut kernel = Kernel::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["livepatch", name, enabled, transition] => {
                    kernel.livepatches.insert((name.to_owned(), enabled == "1", transition == "1"));
                }
                ["module", name] => {
                    kernel.modules.insert(name.to_owned());
                }
                _ => {}
            }
        }
        kernel
    }

    fn state(&self, name: &str) -> &'static str {
        let livepatch = self.livepatches.iter().find(|livepatch| livepatch.0 == name);
        match livepatch.map(|livepatch| (livepatch.1, livepatch.2)) {
            Some((true, false)) => "enabled",
            Some((true, true)) => "enabling",
            Some((false, true)) => "disabling",
            Some((false, false)) => "disabled",
            None if self.modules.contains(name) => "in memory",
            None => "gone",
        }
    }
}

/// What there is after a kill.
#[derive(Debug, Default)]
struct Found {
    kernel: Kernel,
    /// What is installed, in order.
    installed: Vec<String>,
    /// What is in kmend's folder and does not belong there.
    rubbish: usize,
}

impl Found {
    /// Reads what was seen, and complains where kmend says something else than the kernel and the files do.
    fn read(sections: &[Section<'_>], release: &str, complaints: &mut Vec<String>) -> Found {
        let kernel = Kernel::parse(text(sections, "kernel"));
        let mut document = |name: &str| {
            let section = sections.iter().find(|section| section.is(name));
            let status = section.and_then(|section| section.words.get(1).copied());
            let value: Option<Value> = serde_json::from_str(text(sections, name)).ok();
            if status != Some("0") || value.is_none() {
                let said = text(sections, name);
                complaints.push(format!("`kmend {name}` ends with {status:?} and says {said}"));
            }
            value.unwrap_or_default()
        };
        let (list, status, history) = (document("list"), document("status"), document("history"));
        for (command, value) in [("list", &list), ("status", &status)] {
            let said = livepatches(&value["livepatches"]);
            if said != kernel.livepatches {
                complaints.push(format!("the kernel has {:?}, `{command}` {said:?}", kernel.livepatches));
            }
        }
        let named: BTreeSet<String> = names(&status["livepatches"]).chain(names(&status["rests"])).collect();
        if named != kernel.modules {
            complaints.push(format!("the modules are {:?}, and `status` knows {named:?}", kernel.modules));
        }
        if history["unreadable"] != 0 {
            complaints.push(format!("{} lines of the history cannot be read", history["unreadable"]));
        }
        let loading = text(sections, "loading");
        if !loading.is_empty() && serde_json::from_str::<Value>(loading).is_err() {
            complaints.push(format!("the crash memory is damaged: {loading}"));
        }
        let installed: Vec<String> = names(&list["installed"]).collect();
        if installed != [TWO] && installed != [TWO, ONE] {
            complaints.push(format!("the set is {installed:?}"));
        }
        let files = text(sections, "files");
        for place in list["installed"].as_array().into_iter().flatten() {
            let sha256 = place["sha256"].as_str().unwrap_or_default();
            let line = format!("{sha256}  /var/lib/kmend/{release}/{sha256}.ko");
            if !text(sections, "hashes").lines().any(|other| other == line) {
                complaints.push(format!("the installed {} is not whole among\n{files}", place["name"]));
            }
            if !place["held"].is_null() {
                complaints.push(format!("{} is held in the boot in which it was loaded", place["name"]));
            }
        }
        let rubbish = rubbish(files, release, installed.len()).len();
        Found { kernel, installed, rubbish }
    }

    /// The set of livepatches in words.
    fn set(&self) -> String {
        let set = if self.installed.len() == 2 { "installed" } else { "not installed" };
        if self.rubbish == 0 { set.to_owned() } else { format!("{set}, and something to sweep") }
    }
}

fn livepatches(list: &Value) -> BTreeSet<Livepatch> {
    let one = |patch: &Value| -> Option<Livepatch> {
        let name = patch["name"].as_str()?.to_owned();
        Some((name, patch["enabled"].as_bool()?, patch["transition"].as_bool()?))
    };
    list.as_array().into_iter().flatten().filter_map(one).collect()
}

fn names(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(|value| value["name"].as_str().map(str::to_owned))
}

/// What is there when all is done.
struct End {
    kernel: Kernel,
    files: String,
}

impl End {
    fn read(sections: &[Section<'_>]) -> End {
        End { kernel: Kernel::parse(text(sections, "then")), files: text(sections, "files").to_owned() }
    }

    fn rubbish(&self, release: &str, modules: usize) -> Vec<String> {
        rubbish(&self.files, release, modules)
    }
}

/// What does not belong into kmend's folder where so many modules are installed for one kernel; how many there are else.
fn rubbish(files: &str, release: &str, modules: usize) -> Vec<String> {
    let mut left = modules;
    let ours = ["./lock", "./history.jsonl", "./history.1.jsonl", "./loading.json"];
    let other = move |file: &str| {
        let in_folder =
            file.strip_prefix("./").and_then(|file| file.strip_prefix(release)?.strip_prefix('/'));
        match in_folder {
            Some("installed.json") => None,
            Some(file) if file.strip_suffix(".ko").is_some() && left > 0 => {
                left -= 1;
                None
            }
            _ => (!ours.contains(&file)).then(|| file.to_owned()),
        }
    };
    files.lines().filter_map(other).collect()
}

#[cfg(test)]
mod tests;
