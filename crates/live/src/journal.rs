//! What was done to the running system, for systemd's journal.
//!
//! Its native protocol is a datagram of `FIELD=value` lines (systemd's "Native Journal Protocol"). A value with a newline is
//! written as the field's name, a newline, the length as 8 bytes, little end first, the value, and a newline. The journal adds
//! who sent it: `_PID`, `_UID`, `_CMDLINE` and so on.

use crate::system::System;
use kmend_refusal::Code;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Where the journal listens.
const SOCKET: &str = "run/systemd/journal/socket";
/// A journal that does not read for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest message, in bytes: a datagram must stay below the socket's buffer (net.core.wmem_default, 208 KiB).
const LONGEST_MESSAGE: usize = 32 << 10;

/// How much an event matters: the levels of syslog(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Something failed.
    Error,
    /// Something was refused.
    Warning,
    /// Something was done.
    Notice,
}

impl Priority {
    fn level(self) -> &'static str {
        match self {
            Priority::Error => "3",
            Priority::Warning => "4",
            Priority::Notice => "5",
        }
    }
}

/// Something that was done, or was not though it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In words: `MESSAGE`.
    pub message: String,
    /// `PRIORITY`.
    pub priority: Priority,
    /// The command, such as `load`: `KMEND_COMMAND`.
    pub command: &'static str,
    /// The livepatches it is about: a `KMEND_LIVEPATCH` each.
    pub livepatches: Vec<String>,
    /// Why it was not done: a `KMEND_CODE` each.
    pub codes: Vec<Code>,
}

impl System {
    /// Tells the journal. A system without one is not told, and a command does not fail for it.
    pub fn journal(&self, event: &Event) {
        // There is nobody to tell that nobody can be told.
        let _ = self.send(&datagram(event));
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(datagram, self.path(SOCKET)).map(drop)
    }
}

fn datagram(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lengths = event.message.char_indices().map(|(at, c)| at + c.len_utf8());
    let length = lengths.take_while(|length| *length <= LONGEST_MESSAGE).last().unwrap_or(0);
    add(&mut bytes, "MESSAGE", &event.message[..length]);
    add(&mut bytes, "PRIORITY", event.priority.level());
    add(&mut bytes, "SYSLOG_IDENTIFIER", "kmend");
    add(&mut bytes, "KMEND_COMMAND", event.command);
    for livepatch in &event.livepatches {
        add(&mut bytes, "KMEND_LIVEPATCH", livepatch);
    }
    for code in &event.codes {
        add(&mut bytes, "KMEND_CODE", code.name());
    }
    bytes
}

fn add(bytes: &mut Vec<u8>, field: &str, value: &str) {
    bytes.extend_from_slice(field.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn event(message: &str) -> Event {
        Event {
            message: message.into(),
            priority: Priority::Error,
            command: "load",
            livepatches: vec!["livepatch_x".into()],
            codes: vec![Code::TransitionReversed],
        }
    }

    #[test]
    fn a_journal_gets_the_fields() {
        let fake = Fake::new();
        fake.folder("run/systemd/journal");
        let journal = UnixDatagram::bind(fake.path(SOCKET)).unwrap();
        fake.system().journal(&event("livepatch_x went back"));
        let mut bytes = [0; 4096];
        let length = journal.recv(&mut bytes).unwrap();
        let expected = "MESSAGE=livepatch_x went back\nPRIORITY=3\nSYSLOG_IDENTIFIER=kmend\nKMEND_COMMAND=load\n\
                        KMEND_LIVEPATCH=livepatch_x\nKMEND_CODE=KM0715\n";
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), expected);
    }

    #[test]
    fn a_message_of_several_lines_cannot_add_fields() {
        let bytes = datagram(&event("one\nPRIORITY=0"));
        let expected = b"MESSAGE\n\x0e\0\0\0\0\0\0\0one\nPRIORITY=0\nPRIORITY=3\n";
        assert!(bytes.starts_with(expected), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let bytes = datagram(&event(&"é".repeat(LONGEST_MESSAGE)));
        assert!(bytes.len() < LONGEST_MESSAGE + 200 && std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn without_a_journal_nothing_happens() {
        Fake::new().system().journal(&event("x"));
    }
}
