//! QEMU: started, listened to, and ended.

use crate::accelerator::Accelerator;
use crate::console::{Console, Fault, FaultKind};
use crate::error::VmError;
use crate::protocol::{Outcome, Protocol, Said};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// After a fault the guest has this long to print its registers and its trace.
const LAST_WORDS: Duration = Duration::from_millis(800);
/// The longest line of a console that is read in one piece, in bytes.
const LONGEST_LINE: u64 = 8192;
/// The longest time that a guest gets: an `Instant` cannot hold every sum.
const LONGEST_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Pieces that may wait to be looked at before the guest has to wait.
const QUEUE: usize = 64;

/// Options of the kernel for every guest.
///
/// `loglevel=5` lets warnings through to the console, which `quiet` would not; `panic=-1` reboots at once,
/// which `-no-reboot` turns into an end; `oops=panic` ends a guest that is not sound any more;
/// `cryptomgr.notests` because the self-tests of algorithms in modules ask for further modules, which no guest has a
/// modprobe for, and then warn; `no_timer_check` because an emulated machine that has to wait for its turn finds no tick in
/// time (arch/x86/kernel/apic/io_apic.c, `check_timer`), as hypervisors that the kernel knows turn that check off, too. Nothing
/// here changes the kernel's code: alternatives and mitigations stay as on any machine.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic sysctl.kernel.hung_task_timeout_secs=30 cryptomgr.notests \
     no_timer_check";

/// A virtual machine that is not started yet.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The program, looked up in `PATH` if it holds no slash.
    pub qemu: PathBuf,
    /// The kernel's image, a bzImage.
    pub image: PathBuf,
    /// What runs it.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// Whether the guest's clock counts instructions, a nanosecond for each, and does not wait while it is idle. Only with TCG.
    pub counted: bool,
    /// Further options for the kernel.
    pub options: String,
    /// From start to end; at most 30 days.
    pub timeout: Duration,
}

/// How a guest was.
pub(crate) struct Run {
    pub said: Said,
    pub console: Console,
    /// Complaints that did not end it.
    pub faults: Vec<Fault>,
    pub time: Duration,
}

/// Something that QEMU wrote.
enum Event {
    Protocol(Vec<u8>),
    Console(Vec<u8>),
    Closed,
}

impl Machine {
    /// Two processors and 512 MiB, emulated, for at most a minute.
    pub fn new(image: &Path) -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            image: image.to_owned(),
            accelerator: Accelerator::default(),
            memory: 512,
            processors: 2,
            counted: false,
            options: String::new(),
            timeout: Duration::from_secs(60),
        }
    }

    /// Boots with an initramfs and listens until the end. Warnings count from the moment that the guest is up.
    ///
    /// A kernel that dies before its first process, without a disk that it might have damaged or a system of its own that might
    /// have loaded something, is booted once more: nothing that is to be tried has run by then. Emulated kernels do so once in some
    /// thousand boots (seen with QEMU 7.2: a double fault with half an address in the flags). The fault is among those that did not
    /// end the guest.
    pub(crate) fn run(
        &self,
        initramfs: &[u8],
        disk: Option<&Path>,
        protocol: &Protocol,
        warnings_fail: bool,
    ) -> Result<Run, VmError> {
        match self.run_once(initramfs, disk, protocol.clone(), warnings_fail) {
            Err(VmError::Boot { fault: Some(fault), .. }) if disk.is_none() => {
                let mut run = self.run_once(initramfs, disk, protocol.clone(), warnings_fail)?;
                run.faults.insert(0, fault);
                Ok(run)
            }
            run => run,
        }
    }

    fn run_once(
        &self,
        initramfs: &[u8],
        disk: Option<&Path>,
        protocol: Protocol,
        warnings_fail: bool,
    ) -> Result<Run, VmError> {
        let file = unnamed_file(initramfs).map_err(VmError::io(&std::env::temp_dir()))?;
        // QEMU opens the file through our own descriptor: it has no name that could be left behind.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let guest = self.start(Some(&path), disk)?;
        let listener = Listener {
            guest,
            protocol,
            console: Console::default(),
            faults: Vec::new(),
            warnings_fail,
            since: Instant::now(),
        };
        listener.listen(self.timeout.min(LONGEST_TIME))
    }

    /// Whether the kernel comes as far as its banner within the machine's time.
    pub(crate) fn prints_banner(&self) -> bool {
        let Ok(guest) = self.start(None, None) else { return false };
        let end = Instant::now() + self.timeout.min(LONGEST_TIME);
        loop {
            match guest.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Console(line)) if line.windows(14).any(|text| text == b"Linux version ") => {
                    return true;
                }
                Ok(Event::Console(_) | Event::Protocol(_) | Event::Closed) => {}
                Err(_) => return false,
            }
        }
    }

    /// The arguments: a plain PC without any device but two serial ports, and the disk if there is one. QEMU's own messages and the console
    /// come on its error output, the protocol on its output.
    fn arguments(&self, initramfs: Option<&str>, disk: Option<&Path>) -> Vec<String> {
        let options = if initramfs.is_some() { "" } else { " loglevel=7" };
        let mut arguments: Vec<String> = [
            "-nodefaults -no-user-config -no-reboot -display none -machine pc,usb=off -cpu max",
            "-chardev file,id=console,path=/dev/stderr -serial chardev:console",
            "-chardev file,id=protocol,path=/dev/stdout -serial chardev:protocol",
        ]
        .iter()
        .flat_map(|words| words.split(' '))
        .map(str::to_owned)
        .collect();
        arguments.extend(["-accel".into(), accelerator_options(self.accelerator).into()]);
        arguments.extend(["-m".into(), format!("{}M", self.memory)]);
        arguments.extend(["-smp".into(), self.processors.to_string()]);
        if self.counted {
            arguments.extend(["-icount".into(), "shift=0,sleep=off".into()]);
        }
        arguments.extend(["-kernel".into(), self.image.display().to_string()]);
        if let Some(path) = initramfs {
            arguments.extend(["-initrd".into(), path.into()]);
        }
        if let Some(disk) = disk {
            // A comma in the name is written twice (qemu(1), "-drive").
            let path = disk.display().to_string().replace(',', ",,");
            arguments.extend(["-drive".into(), format!("file={path},if=virtio,format=qcow2")]);
        }
        arguments.extend([
            "-append".into(),
            format!("{COMMAND_LINE}{options} {}", self.options).trim_end().into(),
        ]);
        arguments
    }

    /// Starts QEMU. `setpriv` of util-linux, where it is there, has it die with the thread that started it
    /// even if that is killed; a guest without it ends by itself after its steps.
    fn start(&self, initramfs: Option<&str>, disk: Option<&Path>) -> Result<Guest, VmError> {
        let program = find_program(&self.qemu).ok_or_else(|| VmError::ToolMissing {
            program: self.qemu.display().to_string(),
            why: "is not in PATH".into(),
            package: "qemu-system-x86",
        })?;
        let mut command = match find_program(Path::new("setpriv")) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(self.arguments(initramfs, disk)).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(VmError::io(&program))?;
        let (sender, events) = mpsc::sync_channel(QUEUE);
        if let Some(output) = child.stdout.take() {
            let sender = sender.clone();
            thread::spawn(move || read_pieces(output, &sender));
        }
        if let Some(output) = child.stderr.take() {
            thread::spawn(move || read_lines(output, &sender));
        }
        Ok(Guest { child, events })
    }
}

/// What QEMU is told of its accelerator.
///
/// The emulator runs all processors of a guest in one thread. With a thread for each, a processor may execute a
/// breakpoint that the kernel has taken back while it rewrites its own code (QEMU 7.2 and 8.0: linux-kernel,
/// July 2023, "qemu-x86_64 booting with 8.0.0 stil see int3"), and every livepatch has the kernel do so: the
/// guest then dies of `Oops: int3`, about once in a hundred.
fn accelerator_options(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Tcg => "tcg,thread=single",
        Accelerator::Kvm => "kvm",
    }
}

/// A QEMU that runs. Dropped, it is killed and waited for.
struct Guest {
    child: Child,
    events: Receiver<Event>,
}

impl Guest {
    /// Waits for a QEMU that closed its outputs.
    fn wait(&mut self) -> Option<ExitStatus> {
        self.child.wait().ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is known of a guest while it runs.
struct Listener {
    guest: Guest,
    protocol: Protocol,
    console: Console,
    faults: Vec<Fault>,
    warnings_fail: bool,
    since: Instant,
}

impl Listener {
    fn listen(mut self, timeout: Duration) -> Result<Run, VmError> {
        let mut end = self.since + timeout;
        let mut fault: Option<(Fault, Option<String>)> = None;
        let mut open = 2;
        while open > 0 {
            match self.guest.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Protocol(bytes)) => self.hear(&bytes)?,
                Ok(Event::Console(line)) => {
                    if let Some(met) = self.watch(&line)
                        && fault.is_none()
                    {
                        fault = Some((met, self.protocol.running()));
                        end = end.min(Instant::now() + LAST_WORDS);
                    }
                }
                Err(RecvTimeoutError::Timeout) if fault.is_some() => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.timeout(timeout)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match fault {
            Some((fault, _)) if !self.protocol.is_up() => {
                let (why, tail) = (fault.to_string(), self.console.tail());
                Err(VmError::Boot { why, fault: Some(fault), tail })
            }
            Some((fault, step)) => Err(VmError::Fault { fault, step, tail: self.console.tail() }),
            None => self.finish(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), VmError> {
        let step = self.protocol.running();
        self.protocol.push(bytes, self.since.elapsed()).map_err(|why| VmError::Protocol {
            why,
            step,
            tail: self.console.tail(),
        })
    }

    /// Takes a line of the console in; the result is a fault that ends the guest.
    fn watch(&mut self, line: &[u8]) -> Option<Fault> {
        let fault = self.console.push(line)?;
        // A kernel that warns of the machine while it boots does not warn of the livepatch.
        let tolerated = fault.kind == FaultKind::Warning && (!self.warnings_fail || !self.protocol.is_up());
        if tolerated {
            self.faults.push(fault);
            return None;
        }
        Some(fault)
    }

    fn timeout(&self, timeout: Duration) -> VmError {
        VmError::Timeout {
            seconds: timeout.as_secs(),
            step: self.protocol.running(),
            tail: self.console.tail(),
        }
    }

    fn finish(mut self) -> Result<Run, VmError> {
        let status = self.guest.wait();
        let time = self.since.elapsed();
        let tail = self.console.tail();
        if !self.protocol.is_up() {
            let why = status.map_or("it ended".to_owned(), |status| format!("QEMU ended with {status}"));
            return Err(VmError::Boot { why, fault: None, tail });
        }
        let step = self.protocol.running();
        let said = self.protocol.finish().map_err(|why| VmError::Protocol { why, step, tail })?;
        if said.outcome == Outcome::Stopped
            && let Some(last) = said.steps.last()
        {
            return Err(VmError::StepFailed {
                step: last.name.clone(),
                status: last.status,
                output: last.text().trim_end().to_owned(),
                tail: self.console.tail(),
            });
        }
        Ok(Run { said, console: self.console, faults: self.faults, time })
    }
}

/// A file without a name that holds these bytes.
fn unnamed_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn read_pieces(mut output: impl Read, sender: &SyncSender<Event>) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(length @ 1..) = output.read(&mut piece) {
        if sender.send(Event::Protocol(piece[..length].to_vec())).is_err() {
            return;
        }
    }
    // Nobody listens any more if this fails.
    let _ = sender.send(Event::Closed);
}

fn read_lines(output: impl Read, sender: &SyncSender<Event>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(1..) if sender.send(Event::Console(line)).is_ok() => {}
            _ => break,
        }
    }
    // Nobody listens any more if this fails.
    let _ = sender.send(Event::Closed);
}

/// A program by its path, or by its name in `PATH`.
pub(crate) fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return Some(name.to_owned()).filter(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_machine_is_described_in_full() {
        let machine = Machine { options: "quiet".into(), ..Machine::new(Path::new("/boot/vmlinuz")) };
        let line = machine.arguments(Some("/proc/1/fd/3"), Some(Path::new("/a,b.qcow2"))).join(" ");
        for part in [
            "-accel tcg,thread=single",
            "-m 512M",
            "-smp 2",
            "-kernel /boot/vmlinuz",
            "-initrd /proc/1/fd/3",
            "-no-reboot",
            "-drive file=/a,,b.qcow2,if=virtio,format=qcow2",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.ends_with("quiet"), "{line}");
    }

    #[test]
    fn a_missing_qemu_is_told_with_its_package() {
        let machine = Machine { qemu: "kmend-no-such-qemu".into(), ..Machine::new(Path::new("x")) };
        let error = machine.run(b"", None, &Protocol::new("n", vec![]), true).err().unwrap();
        assert!(error.to_string().contains("package qemu-system-x86"), "{error}");
    }

    #[test]
    fn a_qemu_that_does_not_start_the_guest_is_told_with_its_words() {
        let machine = Machine { qemu: "/bin/false".into(), ..Machine::new(Path::new("x")) };
        let error = machine.run(b"", None, &Protocol::new("n", vec![]), true).err().unwrap();
        assert!(matches!(error, VmError::Boot { .. }), "{error}");
    }

    #[test]
    fn a_kernel_that_dies_while_it_boots_is_booted_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let (qemu, boots) = (folder.path().join("qemu"), folder.path().join("boots"));
        let disk = folder.path().join("disk");
        let script = format!(
            "#!/bin/sh\necho >> '{}'\necho '[ 2.2] Oops: double fault: 0000 [#1]' >&2\n",
            boots.display()
        );
        fs::write(&qemu, script).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Machine { qemu, ..Machine::new(Path::new("x")) };
        let boots_with = |disk: Option<&Path>| {
            let error = machine.run(b"", disk, &Protocol::new("n", vec![]), true).err().unwrap();
            assert!(matches!(error, VmError::Boot { fault: Some(_), .. }), "{error}");
            let times = fs::read(&boots).unwrap().len();
            fs::remove_file(&boots).unwrap();
            times
        };
        assert_eq!(boots_with(None), 2);
        assert_eq!(boots_with(Some(&disk)), 1, "the system on the disk may have loaded something");
    }
}
