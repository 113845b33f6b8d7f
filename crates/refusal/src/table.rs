//! The table of codes. One row a code; a row is never removed and never changes its number.

use serde::{Serialize, Serializer};
use std::fmt;

/// How the command ends when this code is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The input is understood and declined: exit code 2.
    Refusal,
    /// Something failed on the way: exit code 1.
    Error,
    /// There is nothing to do: exit code 3.
    Nothing,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident, $title:literal, $way_out:literal;)*) => {
        /// A stable code. `docs/refusals.md` explains each: what, why, way out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* #[doc = concat!("`KM", $number, "`: ", $title, ".")] $name,)*
        }

        impl Code {
            /// Every code, in the table's order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code as it is printed, such as `KM0401`.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => concat!("KM", $number),)* }
            }

            /// A few words that name the reason.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }

            /// One sentence: what the user can do about it.
            pub const fn way_out(self) -> &'static str {
                match self { $(Code::$name => $way_out,)* }
            }

            /// How the command ends.
            pub const fn kind(self) -> Kind {
                match self { $(Code::$name => Kind::$kind,)* }
            }
        }
    };
}

codes! {
    // 00xx: the command itself and the machine it runs on.
    Usage = "0001", Refusal, "bad usage", "see --help for the command's arguments";
    Io = "0002", Error, "cannot read or write", "check the path, its owner and its permissions";
    DiskFull = "0003", Error, "disk full", "free the space that the message names; kernels and builds can be on another file system (KMEND_CACHE)";
    CommandFailed = "0004", Error, "a command failed", "the command line, its folder and its last words are in the message; run it by hand to see more";
    ToolMissing = "0005", Error, "a needed tool is missing", "install the Debian package that the message names";
    Internal = "0009", Error, "an inconsistency inside kmend", "please report it with the report file: nothing was loaded";

    // 01xx: kernels and their facts.
    KernelUnknown = "0101", Refusal, "no such kernel in the cache", "`kmend kernel list` shows what is there, `kmend kernel fetch` gets one";
    FetchFailed = "0102", Error, "the kernel's packages could not be fetched", "check the package sources with `apt-get update`, then run the same command again: what is complete is kept";
    VersionsDiffer = "0103", Refusal, "image, headers, kbuild and source are not of one version", "wait until the package archive has all of one version, or fetch an older release by name";
    ImageFormat = "0104", Error, "not a kernel image that kmend can read", "give a bzImage or an ELF vmlinux for x86-64; a truncated file must be copied again";
    KallsymsNotFound = "0105", Error, "no symbol table in the image", "the kernel needs CONFIG_KALLSYMS=y and CONFIG_KALLSYMS_ALL=y; or give a vmlinux with symbols";
    BtfFormat = "0106", Error, "the type information is damaged or missing", "the kernel needs CONFIG_DEBUG_INFO_BTF=y";
    ModuleFormat = "0107", Error, "not a kernel module that kmend can read", "give an ELF .ko for x86-64, plain or compressed with gzip, xz or zstd";
    NoLivepatch = "0108", Refusal, "this kernel has no livepatch support", "the kernel must be built with CONFIG_LIVEPATCH=y";
    Architecture = "0109", Refusal, "unsupported architecture", "kmend builds for x86-64";
    CacheDamaged = "0110", Error, "a kernel in the cache is incomplete", "`kmend kernel remove` it and fetch it again";
    ImportRefused = "0111", Refusal, "the given files do not make one kernel", "source, configuration, image and headers must be of one build";

    // 02xx: the patch and the compiler.
    PatchFormat = "0201", Refusal, "not a patch that can be read", "give a unified diff as `git diff` or `diff -u` writes it";
    PatchDoesNotApply = "0202", Refusal, "the patch does not apply", "rebase the hunk that the message names on this kernel's source";
    CompileFailed = "0203", Refusal, "the patched source does not compile", "the compiler's own words are in the message";
    NotInKernel = "0204", Refusal, "this kernel contains no object of the patched file", "the file is not built in this configuration: there is nothing to mend here";
    UnsupportedFile = "0205", Refusal, "a kind of file that cannot be patched live", "leave the hunk out: linker scripts, Rust code and binaries take a reboot";
    GeneratedConstants = "0206", Refusal, "the patch changes constants that the build makes from C", "leave the structures that assembly knows as they are";
    DatabaseFailed = "0207", Error, "the kernel's compile commands could not be listed", "the build system's own words are in the message";
    CompilerDiffers = "0208", Refusal, "this compiler is not the one that built the kernel", "install the compiler that the message names";
    ShadowLeak = "0209", Error, "the compiler read an unpatched copy of a patched file", "please report it: no module was built";
    PrepareFailed = "0210", Error, "the kernel tree could not be prepared", "the build system's own words are in the message";

    Assembly = "0211", Refusal, "the patch changes assembly", "leave the hunk out, or make the change in the C code around it";
    Vdso = "0212", Refusal, "the patch changes the vdso", "leave the hunk out: this change takes a reboot";
    RealMode = "0213", Refusal, "the patch changes real-mode code", "leave the hunk out: this change takes a reboot";
    BootCode = "0214", Refusal, "the patch changes code that runs before or after the kernel", "leave the hunk out: this change takes a reboot";
    Configuration = "0215", Refusal, "the patch changes the kernel's configuration", "leave the hunk out: the kernel that runs has its configuration";
    BuildFile = "0216", Refusal, "the patch changes how the kernel is built", "leave the hunk out, or list just the objects of new files";
    NewUnit = "0217", Refusal, "a new file that cannot become part of this kernel", "put the new functions into a file that is there";
    RemovedUnit = "0218", Refusal, "the patch removes or moves a source that is part of this kernel", "keep the file, and change its functions";
    AmbiguousHunk = "0219", Refusal, "a hunk that may belong elsewhere", "write the patch for this kernel's source, with three lines of context and with the function's name behind the second `@@`, as `git diff` does";
    GeneratedFrom = "0220", Refusal, "the patch changes what code of the kernel is made from", "leave the hunk out: what the build makes with this file is in the kernel that runs, and cannot be made anew";
    UnexplainedHunk = "0221", Refusal, "a hunk whose effect cannot be explained", "please report it with the patch; without the hunk, what remains can be built";

    // 03xx: the match of the compiled original against the image.
    ImageDiffers = "0301", Refusal, "the image is not what this source and compiler make", "use the source, the configuration and the compiler that the kernel was built with";
    NotInImage = "0302", Refusal, "a function is not in the image", "the function was dropped or inlined when the kernel was linked; patch its callers";
    AmbiguousSymbol = "0303", Refusal, "a symbol's place in the image is not certain", "the image holds several candidates; patch a caller whose symbols are unique";

    // 04xx: the differ.
    ChangedData = "0401", Refusal, "changed static data", "KMEND_UPDATE_DATA() exchanges numbers and pointers to what has a name where they live; or change it from code, in a callback or at each use";
    ChangedInit = "0402", Refusal, "changed __init code", "make the change in code that runs later; or, if the rest is good without it, KMEND_IGNORE_FUNCTION()";
    NoFentry = "0403", Refusal, "function without an ftrace entry", "it is notrace, noinstr or __exit: patch its callers, build with `kmend build --engine`, which redirects most such functions by a jump, or keep the old one by KMEND_IGNORE_FUNCTION()";
    ModuleStaticKey = "0404", Refusal, "static key of a module", "use static_key_enabled() in the patched function instead of the jump label";
    ModuleStaticCall = "0405", Refusal, "static call of a module", "call through an ordinary function pointer instead";
    UnknownSection = "0406", Refusal, "unknown section refers to a changed function", "kmend does not know how to carry this section over; please report it with the section's name";
    NothingChanges = "0407", Nothing, "nothing changes", "the patch changes no code of this kernel: there is nothing to load";
    ObjectFormat = "0408", Error, "not an object that can be compared", "give x86-64 relocatable ELF objects compiled with -ffunction-sections and -fdata-sections";
    NoFunctionSections = "0409", Refusal, "object without function sections", "compile both objects with -ffunction-sections -fdata-sections";
    UnsupportedReference = "0410", Refusal, "a reference that cannot be resolved safely", "the message names the function and the place it refers to; please report it";
    ChangedExport = "0411", Refusal, "the patch adds or removes an exported symbol or a module parameter", "keep the set of exports and parameters as it is";
    ChangedStatic = "0412", Refusal, "a static variable changes its size or kind", "keep the variable as it is and add a new one";
    ChangedStructure = "0413", Refusal, "changed structure layout", "keep the fields where they are and put new ones into a shadow variable; if no instance outlives the old code, confirm it with KMEND_ACCEPT_TYPE()";
    GrownStructure = "0414", Refusal, "fields added at the end of a structure", "put the new fields into a shadow variable; if no instance outlives the old code, confirm it with KMEND_ACCEPT_TYPE()";
    ChangedEnumeration = "0415", Refusal, "changed value of an enumeration", "add new names behind the others; if no old number is stored anywhere, confirm it with KMEND_ACCEPT_TYPE()";
    ChangedGlobal = "0416", Refusal, "a global variable changes its size or kind", "keep the variable as it is and add a new one, or set what it should hold in a callback";
    ChangedExportType = "0417", Refusal, "changed interface of an exported symbol", "keep the declaration and add a function with the new one; if no module can tell the difference, confirm a type with KMEND_ACCEPT_TYPE()";
    ChangedSignature = "0418", Refusal, "changed parameters of a function that other code calls", "keep its declaration and add a function with the new one, which the patched callers call";
    Request = "0421", Refusal, "a request of the patch that cannot be met", "give what the macro of kmend.h asks for, see docs/authoring.md";
    Unexplained = "0430", Refusal, "a difference that kmend cannot explain", "take what makes it out of the patch; if it is code or data that a livepatch can carry, please report it";
    ChangedMemory = "0431", Refusal, "a variable changes the kind of its memory", "leave the variable as it is and add another one of the new kind, with a callback that gives it its value";
    Unlinkable = "0432", Refusal, "no kernel would link this", "make the name global in the same patch (and export it to modules), or use what is; the message says which definition is in the way";
    OtherMeaning = "0433", Refusal, "a name comes to mean something else", "keep what the name stands for, and give the new thing a name of its own";
    LostState = "0434", Refusal, "state that would be lost", "KMEND_RENAMED(old, new) keeps the living variable under its new name, KMEND_BEGINS_ANEW(new) says that the new one has nothing to do with it";
    NoLandingPad = "0435", Refusal, "the address of a function that the kernel calls by its name alone", "take the address of a new function that calls it";
    NewDependency = "0440", Refusal, "a module would need another one", "look the symbol up when it is used: symbol_get(NAME), which is NULL if its module is not loaded, and symbol_put(NAME)";
    ChangedRegistration = "0450", Refusal, "a table that registers something changes", "leave the entry as it is; or, if the rest is good without it, KMEND_IGNORE_SECTION() with the section that the message names";

    // 05xx: the linker and the module step.
    ModuleStepFailed = "0501", Error, "the module could not be built", "the build system's own words are in the message";
    LinkFailed = "0502", Error, "the module could not be linked", "please report it with the report file: nothing was loaded";
    NameTooLong = "0503", Refusal, "a name is too long for the kernel", "choose a shorter --name; symbols are limited by the kernel's KSYM_NAME_LEN";
    ObjtoolWarned = "0504", Refusal, "objtool found fault with the patched code", "its own words are in the message; the unwinder could not be trusted in this function";

    // 051x: the second opinion on a finished module.
    AuditEntry = "0510", Refusal, "audit: an entry of the patch table leads elsewhere", "do not load the module; please report it with the patch and the kernel's release";
    AuditCode = "0511", Refusal, "audit: the module's code or data is not the patched source's", "do not load the module; please report it with the patch and the kernel's release";
    AuditReference = "0512", Refusal, "audit: a relocation leads to another thing", "do not load the module; please report it with the patch and the kernel's release";
    AuditMissing = "0513", Refusal, "audit: a change is not in the module", "do not load the module; please report it with the patch and the kernel's release";
    AuditMemory = "0514", Refusal, "audit: memory of another kind, or freed memory", "do not load the module; please report it with the patch and the kernel's release";
    AuditTable = "0515", Refusal, "audit: a table of places in code does not fit the code", "do not load the module; please report it with the patch and the kernel's release";
    AuditUnexplained = "0516", Refusal, "audit: something in the module that nothing accounts for", "do not load the module; please report it with the patch and the kernel's release";
    AuditLost = "0517", Refusal, "audit: the original is not found in the kernel", "give the patches and the kernel that the module was built from";
    AuditRunning = "0518", Refusal, "audit: memory does not hold what the livepatch's module says", "disable the livepatch and start the machine anew as soon as it can be; please report it with the module and the kernel's release";

    // 06xx: the proof in a virtual machine.
    VmFailed = "0601", Error, "the virtual machine could not be run", "the message says what is missing; `qemu-system-x86` and `busybox-static` are needed";
    ProofFailed = "0602", Refusal, "the proof failed", "the guest's last words are in the message: do not load this module";
    GuestTimeout = "0603", Refusal, "the guest did not answer in time", "the console's tail shows where it stopped; --timeout gives it longer";

    // 07xx: the running system.
    NotRoot = "0701", Error, "root is needed", "run the command as root (CAP_SYS_MODULE)";
    NotALivepatch = "0702", Refusal, "not a livepatch module", "give the .ko that `kmend build` wrote";
    WrongKernel = "0703", Refusal, "the module is for another kernel", "build it for the kernel that runs: `kmend build --kernel $(uname -r)`";
    AlreadyLoaded = "0704", Nothing, "already loaded", "`kmend list` shows it";
    NotLoaded = "0705", Nothing, "not loaded", "`kmend list` shows what is";
    KernelRefused = "0706", Error, "the kernel refused the module", "the errno and the kernel's own lines are in the message";
    TransitionStalled = "0707", Error, "the transition does not finish", "`kmend blocking` shows the tasks that hold it, `kmend wait` goes on waiting: it goes on in the kernel";
    SysfsFormat = "0708", Error, "the kernel's livepatch state cannot be read", "is sysfs mounted at /sys, and is the kernel built with CONFIG_LIVEPATCH=y?";
    TransitionBusy = "0709", Error, "another transition is under way", "wait until it ends (`kmend wait`), then try again";
    BuildIdDiffers = "0710", Refusal, "the running kernel is another build of this release", "build it for the kernel that runs: fetch that very version, or import its own image and source";
    FunctionConflict = "0711", Refusal, "a loaded livepatch patches the same function", "build both patches into one livepatch that replaces, or unload the other one first";
    FtraceOff = "0712", Refusal, "ftrace is switched off", "switch it on with `sysctl kernel.ftrace_enabled=1`: livepatches redirect functions by it";
    SignatureNeeded = "0713", Refusal, "this kernel takes signed modules only", "sign the module with a key that the kernel trusts: `kmend sign`, see docs/signing.md";
    DoesNotReplace = "0714", Refusal, "the livepatch does not replace others", "build it without --no-replace, or load it beside the others with `kmend load`";
    TransitionReversed = "0715", Error, "the transition did not finish and was reversed", "the tasks that held it are in the message: wake or stop them, then try again, with a longer --timeout if need be";
    Interrupted = "0716", Error, "interrupted", "the transition goes on in the kernel: `kmend wait` awaits it, `kmend status` shows it";
    CannotEnable = "0717", Refusal, "a disabled livepatch cannot be enabled again", "load it again: `kmend load FILE`";
    NotConfirmed = "0718", Refusal, "not confirmed", "read what the command does, and give --yes if that is what you want";
    NoTransition = "0719", Nothing, "no transition is under way", "`kmend list` shows the livepatches and their states";
    NotSignalled = "0720", Refusal, "a process that cannot be moved by a signal", "`kmend blocking` shows what would free it";
    InstalledLocked = "0730", Error, "another kmend changes what is installed", "wait until it has ended, then try again";
    InstalledUnsafe = "0731", Refusal, "others could have changed what is installed", "see who has written there; then `chown -R root:root /var/lib/kmend` and `chmod -R go-w /var/lib/kmend`, and a folder in place of a link";
    InstalledDamaged = "0732", Error, "the list of what is installed cannot be read", "move the file that the message names away, and install the livepatches again";
    InstalledModuleDamaged = "0733", Error, "an installed module is not what was installed", "install it again: `kmend uninstall NAME`, then `kmend install FILE`";
    OtherContents = "0734", Refusal, "a livepatch of this name is installed with other contents", "give --overwrite to put the new one in its place, or build it with another --name";
    AlreadyInstalled = "0735", Nothing, "already installed", "`kmend status` shows it";
    NotInstalled = "0736", Nothing, "not installed", "`kmend status` shows what is; --kernel names another kernel";
    Held = "0737", Refusal, "held after a crash", "find out what the machine died of; `kmend release NAME` lets it be loaded at boot again";
    NoCrashMemory = "0738", Error, "not loaded at boot, because a crash could not be remembered", "make /var/lib/kmend writable, then `kmend boot`";
    NotHeld = "0739", Nothing, "not held", "`kmend status` shows what is";

    StaysInMemory = "0740", Refusal, "a disabled livepatch of this name stays in memory", "build it with another --name, or load it after the next boot; `kmend status` shows what of it may still be in use";

    // 075x, 076x: signatures and manifests.
    SigningKey = "0750", Refusal, "a signing key that cannot be read", "give an RSA or ECDSA (P-256, P-384) private key in PEM";
    KeyPassphrase = "0751", Refusal, "the passphrase of the signing key is missing or wrong", "give it by --passphrase-file or in the variable KBUILD_SIGN_PIN";
    Certificate = "0752", Refusal, "a certificate that cannot be read", "give an X.509 certificate of an RSA or ECDSA (P-256, P-384) key, in PEM or DER";
    KeyMismatch = "0753", Refusal, "key and certificate do not belong together", "give the certificate that was made for this key";
    CertificateTime = "0754", Refusal, "the certificate is not valid now", "sign with a certificate that is, or set the clock";
    CertificateUsage = "0755", Refusal, "the certificate does not allow signatures", "make one with keyUsage = digitalSignature, see docs/signing.md";
    SignatureDamaged = "0756", Refusal, "a damaged signature", "fetch or build the module again: the kernel refuses it even where it needs no signatures";
    SignatureWrong = "0757", Refusal, "a signature that is not over these bytes", "do not load it: fetch it again from where it was signed";
    SignerUntrusted = "0758", Refusal, "signed by someone who is not trusted", "if you trust the signer, give the certificate by --cert, or put it into /etc/kmend/trusted";
    NotSigned = "0759", Refusal, "not signed", "sign it: `kmend sign FILE --key KEY --cert CERT`";
    NothingTrusted = "0760", Refusal, "no certificate to verify with", "give one by --cert or --trusted, or put it into /etc/kmend/trusted";
    TrustUnsafe = "0761", Refusal, "trusted certificates that others can change", "make the folder and its files writable for root alone";
    ManifestFormat = "0762", Refusal, "a manifest that cannot be read", "build the livepatch again: `kmend build` writes it";
    ManifestDiffers = "0763", Refusal, "the manifest is not this module's", "do not load it: fetch both again from where they were made";
    SignatureRejected = "0764", Error, "the kernel does not accept the signature", "sign with a key whose certificate the kernel has: `mokutil --import CERT.der` enrolls one at the next boot, see docs/signing.md";
    SignatureUnsupported = "0765", Refusal, "a signature that kmend cannot verify", "sign it with RSA or ECDSA (P-256, P-384) over SHA-256, SHA-384 or SHA-512: `kmend sign`";

    // 0790: what a module is given.
    NoSuchParameter = "0790", Refusal, "the module has no such parameter", "`modinfo FILE` lists those that it has; the kernel would ignore another";

    // 08xx: the consistency engine.
    EngineSymbol = "0800", Refusal, "the consistency engine needs something that this kernel does not have", "use the kernel's own livepatch on this kernel";
    EngineMissing = "0801", Refusal, "the consistency engine is not loaded", "`kmend engine load` loads it";
    EngineLoaded = "0802", Nothing, "the consistency engine is loaded already", "`kmend engine status` shows it";
    EngineBusy = "0803", Refusal, "the consistency engine is in use", "unload its patches, which the message names, then try again";
    NotForEngine = "0807", Refusal, "a livepatch for the kernel, not for the consistency engine", "leave --engine, --model and --redirect out, or build it with `kmend build --engine`";
    NoSuchModel = "0808", Refusal, "a model or redirect that the consistency engine does not have", "take one that the message names";
    EngineDiffers = "0809", Refusal, "the patch is for another build of the consistency engine", "build the patch again, or load the engine that it was built for";
    RedirectedByOther = "0810", Refusal, "a function is patched by the other of engine and kernel", "unload the livepatch that the message names, or build all patches for one of the two";
    ModelTooWeak = "0811", Refusal, "a consistency model that is too weak for the patch", "take a model that waits for old code, such as hybrid or stop-machine";
    NotInEngine = "0812", Refusal, "the consistency engine does not have this", "the message says what to do instead";
    EngineNotInstalled = "0813", Refusal, "the consistency engine is not installed for the boot", "`kmend engine build` makes it for a kernel; give its file to `kmend install` with the patch";
    NoRoom = "0814", Refusal, "function without an ftrace entry or room for a jump", "patch its callers, or keep the old one by KMEND_IGNORE_FUNCTION()";
    NoStop = "0815", Refusal, "a model or redirect that cannot switch a function without an ftrace entry", "take the ones that the message names";
    EngineNeeded = "0816", Refusal, "installed patches need the consistency engine", "uninstall them as well; with the last of them the engine goes by itself";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
    }

    #[test]
    fn every_code_is_four_digits_and_says_what_to_do() {
        for code in Code::ALL {
            assert_eq!(code.name().len(), 6, "{code}");
            assert!(code.name()[2..].bytes().all(|byte| byte.is_ascii_digit()), "{code}");
            assert!(!code.title().is_empty() && !code.way_out().is_empty(), "{code}");
        }
    }
}
