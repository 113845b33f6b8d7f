//! The one place that runs commands.
//!
//! Whatever a stage starts (the compiler, make, objtool, apt-get, QEMU's tools) goes through [`Command`], so
//! that a failure always carries what a person needs to run it by hand: the command line, the folder, the
//! exit status and the last lines it printed.
//!
//! Architecture invariant: no other crate calls `std::process::Command`, but for the virtual machine whose
//! console is a conversation and not an output.

use kmend_refusal::{Code, Coded};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

/// How many of a failed command's last lines an error keeps.
const TAIL_LINES: usize = 40;

/// A command that did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("{}", not_started(line, program, source))]
    Start {
        /// The command line, quoted for a shell.
        line: String,
        /// The program's name, to look up its package.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("`{line}` in {folder} ended with {status}:\n{tail}")]
    Failed {
        /// The command line, quoted for a shell.
        line: String,
        /// The folder it ran in.
        folder: String,
        /// Exit status or signal, in words.
        status: String,
        /// The last lines of its error output, or of its output where the former is empty.
        tail: String,
    },
}

impl Coded for ProcessError {
    fn code(&self) -> Code {
        match self {
            ProcessError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Code::ToolMissing
            }
            ProcessError::Start { .. } | ProcessError::Failed { .. } => Code::CommandFailed,
        }
    }
}

/// Programs that lie in a Debian package of another name.
const PACKAGES: &[(&str, &str)] = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("apt-config", "apt"),
    ("dpkg-deb", "dpkg"),
    ("ld", "binutils"),
    ("objcopy", "binutils"),
    ("xz", "xz-utils"),
];

fn not_started(line: &str, program: &str, source: &io::Error) -> String {
    if source.kind() != io::ErrorKind::NotFound {
        return format!("cannot start `{line}`: {source}");
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    format!("`{program}` is not there: install the Debian package {package}. It is needed for\n{line}")
}

/// What a finished command printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether the exit status was 0.
    pub success: bool,
    /// Exit status or signal, in words.
    pub status: String,
}

impl Output {
    /// Standard output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; bytes that are not UTF-8 are replaced.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Output {
            success: output.status.success(),
            status: output.status.to_string(),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }
}

/// A command line under construction. Nothing passes through a shell.
#[derive(Debug, Clone)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    folder: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

impl Command {
    /// A command that starts `program`, looked up in `PATH` if it holds no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            folder: None,
            environment: vec![("LC_ALL".into(), "C".into())],
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// The folder to run in.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets an environment variable on top of the inherited ones.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The command line, quoted so that it can be pasted into a shell.
    pub fn line(&self) -> String {
        let mut line = quote(&self.program);
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(&quote(argument));
        }
        line
    }

    /// Runs it with no standard input and returns what it printed, whatever its exit status.
    pub fn output(&self) -> Result<Output, ProcessError> {
        self.finish(&mut self.standard())
    }

    fn finish(&self, command: &mut std::process::Command) -> Result<Output, ProcessError> {
        Ok(command.output().map_err(|source| self.not_started(source))?.into())
    }

    /// Runs it while `next` reads what it prints, and returns what `next` prints. Any exit status but 0 is an error.
    pub fn pipe(&self, next: &Command) -> Result<Output, ProcessError> {
        let broken = |source| self.not_started(source);
        let mut writer =
            self.standard().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(broken)?;
        let text = writer.stdout.take().map_or_else(Stdio::null, Stdio::from);
        let (read, written) = thread::scope(|scope| {
            // It must not wait for somebody to listen to its complaints.
            let written = scope.spawn(|| writer.wait_with_output());
            let read = next.finish(next.standard().stdin(text));
            (
                read,
                written
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the thread that waits for it ended"))),
            )
        });
        let (read, written) = (read?, Output::from(written.map_err(broken)?));
        match (read.success, written.success) {
            (true, true) => Ok(read),
            // A reader that gives up ends the writer too.
            (false, _) => Err(next.failure(&read)),
            (true, false) => Err(self.failure(&written)),
        }
    }

    /// Runs it with no standard input, and hands on each line of its output as it comes: for work that people
    /// watch. Its error output is this process's own. Any exit status but 0 is an error.
    pub fn watch(&self, each: &mut dyn FnMut(&str)) -> Result<(), ProcessError> {
        let broken = |source| self.not_started(source);
        let mut child = self.standard().stdout(Stdio::piped()).spawn().map_err(broken)?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n') {
                // An output that cannot be read has ended; the exit status tells the rest.
                let Ok(line) = line else { break };
                each(&String::from_utf8_lossy(&line));
            }
        }
        let status = child.wait().map_err(broken)?;
        if status.success() { Ok(()) } else { Err(self.failed(&status.to_string(), String::new())) }
    }

    fn standard(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn not_started(&self, source: io::Error) -> ProcessError {
        let program = self.program.to_string_lossy().into_owned();
        ProcessError::Start { line: self.line(), program, source }
    }

    fn failed(&self, status: &str, tail: String) -> ProcessError {
        let folder = self.folder.as_deref().unwrap_or(Path::new(".")).display().to_string();
        ProcessError::Failed { line: self.line(), folder, status: status.to_owned(), tail }
    }

    /// Runs it and makes any exit status but 0 an error.
    pub fn run(&self) -> Result<Output, ProcessError> {
        let output = self.output()?;
        if output.success { Ok(output) } else { Err(self.failure(&output)) }
    }

    /// The error for a finished command whose result the caller finds bad.
    pub fn failure(&self, output: &Output) -> ProcessError {
        let stderr = output.error_text();
        let text = if stderr.trim().is_empty() { output.text() } else { stderr };
        self.failed(&output.status, tail(&text, TAIL_LINES))
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Quotes one word for a POSIX shell.
pub fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_line_folder_status_and_last_words() {
        let command = Command::new("sh").args(["-c", "echo two words >&2; exit 7"]).folder("/");
        let error = command.run().unwrap_err();
        assert_eq!(error.code(), Code::CommandFailed);
        let text = error.to_string();
        assert!(text.contains("sh -c 'echo two words >&2; exit 7'"), "{text}");
        assert!(text.contains("in / ended with exit status: 7"), "{text}");
        assert!(text.ends_with("two words"), "{text}");
    }

    #[test]
    fn a_watched_command_hands_on_its_lines() {
        let mut lines = Vec::new();
        let command = Command::new("sh").args(["-c", "echo one; echo two; exit 3"]);
        let error = command.watch(&mut |line| lines.push(line.to_owned())).unwrap_err();
        assert_eq!(lines, ["one", "two"]);
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_pipe_gives_the_readers_output_and_either_ones_failure() {
        let shell = |script: &str| Command::new("sh").args(["-c", script]);
        assert_eq!(shell("echo words").pipe(&Command::new("cat")).unwrap().text(), "words\n");
        let error = shell("echo why >&2; exit 3").pipe(&Command::new("cat")).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("why"), "{error}");
        let error = shell("yes").pipe(&shell("exit 4")).unwrap_err().to_string();
        assert!(error.contains("exit status: 4"), "{error}");
        let error = shell("echo").pipe(&shell("cat; echo no >&2; exit 5")).unwrap_err().to_string();
        assert!(error.contains("exit status: 5") && error.ends_with("no"), "{error}");
        let error = shell("yes").pipe(&Command::new("kmend-no-such-program")).unwrap_err();
        assert_eq!(error.code(), Code::ToolMissing);
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let error = Command::new("kmend-no-such-program").run().unwrap_err();
        assert_eq!(error.code(), Code::ToolMissing);
        let text = error.to_string();
        assert!(text.contains("install the Debian package kmend-no-such-program"), "{text}");
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn quoting_survives_a_shell() {
        for word in ["plain", "two words", "it's", "", "$HOME", "a;b"] {
            let output = Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(OsStr::new(word)))])
                .run()
                .unwrap();
            assert_eq!(output.text(), word);
        }
    }
}
