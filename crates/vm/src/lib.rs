//! Boots a kernel in a virtual machine and proves a livepatch in it.
//!
//! A [`Scenario`] is a kernel, what the guest holds, and a list of [`Step`]s. It is turned into an initramfs
//! (busybox, modules, programs, and a script that runs as init) and booted by QEMU; the guest says what each
//! step printed on its second serial port, the kernel's console is the first. [`prove`] is the scenario that
//! every livepatch must pass: load, unload, load again, unload, with nothing to complain of.
//!
//! With a [`Disk`] the guest is a whole Linux system: the initramfs goes on to it, and the same script runs the
//! steps as a unit of systemd.
//!
//! The guest is not trusted to end well: its words are framed with a nonce, it must say its outcome exactly
//! once, and the console is watched for oopses, warnings and lockups all the time.
//!
//! Architecture invariant: a stage that boots nothing does not need this crate, and this crate judges no
//! output: what a step should print is known by the caller. It is the one crate beside `kmend-process` that
//! starts a program, because the console of a virtual machine is a conversation and not an output.

mod accelerator;
mod console;
mod disk;
mod error;
mod initramfs;
mod machine;
mod program;
mod protocol;
mod prove;
mod scenario;
mod script;

pub use accelerator::Accelerator;
pub use console::{Fault, FaultKind};
pub use disk::Disk;
pub use error::VmError;
pub use initramfs::{Device, Initramfs};
pub use machine::Machine;
pub use protocol::StepOutcome;
pub use prove::{Presence, Proof, ProofReport, prove};
pub use scenario::{GuestFile, Scenario, Step, Transcript, Warnings, static_busybox};
