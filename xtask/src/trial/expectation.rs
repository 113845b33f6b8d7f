//! What a patch must do: the files beside it, as tests/patches/README.md defines them.

use std::collections::BTreeSet;

/// The state of the guest in which a check is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Before the livepatch is loaded for the first time.
    Before,
    /// While it is loaded.
    Loaded,
    /// After it is unloaded.
    Unloaded,
}

impl State {
    /// The word for it in a test file and in `$STATE`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Before => "before",
            State::Loaded => "loaded",
            State::Unloaded => "unloaded",
        }
    }
}

/// How an output is compared with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Contains,
    Lacks,
    Equals,
}

/// One line about what a check prints.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expectation {
    state: State,
    comparison: Comparison,
    text: String,
}

/// A command, and what it must print in each state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// A line for the guest's shell.
    pub(crate) command: String,
    expectations: Vec<Expectation>,
}

impl Check {
    /// What is wrong with an output, each with what was expected.
    pub(crate) fn complaints(&self, state: State, output: &str) -> Vec<String> {
        let wrong = |expectation: &&Expectation| {
            let text = expectation.text.as_str();
            expectation.state == state
                && match expectation.comparison {
                    Comparison::Contains => !output.contains(text),
                    Comparison::Lacks => output.contains(text),
                    Comparison::Equals => output.trim_end() != text,
                }
        };
        let say = |expectation: &Expectation| {
            let how = match expectation.comparison {
                Comparison::Contains => "lacks",
                Comparison::Lacks => "holds",
                Comparison::Equals => "is not",
            };
            format!("{}: the output of `{}` {how} `{}`", state.name(), self.command, expectation.text)
        };
        self.expectations.iter().filter(wrong).map(say).collect()
    }
}

/// A code that a build must be refused with, and a text that its message must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedRefusal {
    /// Such as `KM0401`.
    pub(crate) code: String,
    /// Empty if any message will do.
    pub(crate) text: String,
}

impl ExpectedRefusal {
    fn parse(line: &str) -> Self {
        let (code, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Self { code: code.to_owned(), text: text.trim().to_owned() }
    }

    /// Reads a `.refuse` file.
    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(Self::parse).collect()
    }
}

/// A `.test` file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Test {
    /// Functions that the report must call changed; not compared if there is no such line.
    pub(crate) changed: Option<BTreeSet<String>>,
    /// Functions that it must call new.
    pub(crate) new: BTreeSet<String>,
    /// Texts that the report's advice must hold.
    pub(crate) advice: Vec<String>,
    /// Texts that none of the report's advice may hold.
    pub(crate) no_advice: Vec<String>,
    /// Texts that the report's other notes must hold.
    pub(crate) notes: Vec<String>,
    /// Texts that the report's hunks must hold, as `FILE EFFECT NAME...: WHY`.
    pub(crate) hunks: Vec<String>,
    /// How many folders are left out of the patches' names; `None` for the default.
    pub(crate) depth: Option<usize>,
    /// How many lines of context may differ.
    pub(crate) fuzz: usize,
    /// Further patches of the folder.
    pub(crate) with: Vec<String>,
    /// Refusals that pass the trial.
    pub(crate) or_refused: Vec<ExpectedRefusal>,
    /// Modules that are loaded before the livepatch.
    pub(crate) modules: Vec<String>,
    /// Modules that are loaded after it.
    pub(crate) late_modules: Vec<String>,
    /// Commands that are run once.
    pub(crate) setup: Vec<String>,
    /// What is looked at.
    pub(crate) checks: Vec<Check>,
}

impl Test {
    /// Reads a `.test` file. The error names the line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut test = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |why: &str| format!("line {}: {why}: {line}", number + 1);
            let (key, value) = line.split_once(": ").ok_or_else(|| at("not `KEY: VALUE`"))?;
            test.take(key, value).map_err(at)?;
        }
        if test.checks.is_empty() { Err("it checks nothing".into()) } else { Ok(test) }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let words = || value.split_whitespace().map(str::to_owned);
        match key {
            "changed" => self.changed.get_or_insert_default().extend(words()),
            "new" => self.new.extend(words()),
            "advice" => self.advice.push(value.to_owned()),
            "advice!" => self.no_advice.push(value.to_owned()),
            "hunk" => self.hunks.push(value.to_owned()),
            "note" => self.notes.push(value.to_owned()),
            "depth" => self.depth = Some(value.parse().map_err(|_| "no number")?),
            "fuzz" => self.fuzz = value.parse().map_err(|_| "no number")?,
            "with" => self.with.extend(words()),
            "or-refused" => self.or_refused.push(ExpectedRefusal::parse(value)),
            "module" => self.modules.extend(words()),
            "module-late" => self.late_modules.extend(words()),
            "setup" => self.setup.push(value.to_owned()),
            "check" => self.checks.push(Check { command: value.to_owned(), expectations: Vec::new() }),
            _ => return self.expect(key, value),
        }
        Ok(())
    }

    fn expect(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let (name, comparison) = match key.strip_suffix('!') {
            Some(name) => (name, Comparison::Lacks),
            None => match key.strip_suffix('=') {
                Some(name) => (name, Comparison::Equals),
                None => (key, Comparison::Contains),
            },
        };
        let state = [State::Before, State::Loaded, State::Unloaded]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or("unknown key")?;
        let check = self.checks.last_mut().ok_or("an expectation before the first check")?;
        check.expectations.push(Expectation { state, comparison, text: value.to_owned() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
changed: a b
module: zram

# a comment
check: cat /x
before=: 1
loaded: 2
unloaded!: 2
";

    #[test]
    fn a_test_reads_back() {
        let test = Test::parse(TEXT).unwrap();
        assert_eq!(test.changed.unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(test.modules, ["zram"]);
        assert_eq!(test.checks.len(), 1);
    }

    #[test]
    fn outputs_are_judged_by_state() {
        let check = Test::parse(TEXT).unwrap().checks.remove(0);
        assert!(check.complaints(State::Before, "1\n").is_empty());
        assert_eq!(check.complaints(State::Before, "11\n").len(), 1);
        assert!(check.complaints(State::Loaded, "123").is_empty());
        assert_eq!(check.complaints(State::Loaded, "1"), ["loaded: the output of `cat /x` lacks `2`"]);
        assert_eq!(check.complaints(State::Unloaded, "2").len(), 1);
    }

    #[test]
    fn mistakes_are_found() {
        let refused = |text: &str| Test::parse(text).unwrap_err();
        assert!(refused("before: x\n").contains("before the first check"));
        assert!(refused("chek: x\n").contains("unknown key"));
        assert!(refused("check\n").contains("not `KEY: VALUE`"));
        assert!(refused("changed: x\n").contains("checks nothing"));
    }

    #[test]
    fn refusals_have_a_code_and_perhaps_a_text() {
        let lines = ExpectedRefusal::parse_all("# why\nKM0401 speed_table\nKM0402\n");
        let pairs: Vec<_> = lines.iter().map(|line| (line.code.as_str(), line.text.as_str())).collect();
        assert_eq!(pairs, [("KM0401", "speed_table"), ("KM0402", "")]);
    }
}
