use super::*;
use crate::fake::{Fake, RELEASE, module, module_with};
use kmend_inspect::{PatchedFunction, PatchedObject};
use kmend_refusal::{Code, Coded};
use kmend_sign::{Hash, KeyFiles, Signer};

/// A note with the build id 01020304 (ELF gABI, "Note Section").
const NOTES: &[u8] = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\x01\x02\x03\x04";

fn codes(fake: &Fake, bytes: &[u8]) -> Vec<Code> {
    let checked = fake.system().check(&[fake.file("y.ko", bytes)]).remove(0);
    checked.map_or_else(|errors| errors.iter().map(Coded::code).collect(), |_| Vec::new())
}

fn livepatch() -> Vec<u8> {
    module("livepatch_y", RELEASE, true)
}

#[test]
fn what_is_no_livepatch_of_this_kernel_never_reaches_the_kernel() {
    let fake = Fake::new();
    assert_eq!(codes(&fake, &module("y", RELEASE, false)), [Code::NotALivepatch]);
    assert_eq!(codes(&fake, &module("y", "5.0.0", true)), [Code::WrongKernel]);
    assert_eq!(codes(&fake, b"\x1f\x8b packed"), [Code::NotALivepatch]);
    assert_eq!(codes(&fake, b"text"), [Code::ModuleFormat]);
    assert_eq!(codes(&fake, &module("../y", RELEASE, true)), [Code::Usage]);
    assert_eq!(codes(&fake, &livepatch()), []);
    assert!(fake.calls().is_empty());
}

#[test]
fn a_module_of_any_length_is_an_error_and_no_panic() {
    let fake = Fake::new();
    let whole = livepatch();
    for length in (0..whole.len()).step_by(7) {
        assert!(!codes(&fake, &whole[..length]).is_empty(), "{length}");
    }
}

#[test]
fn another_build_of_the_release_is_told_by_its_id() {
    let fake = Fake::new();
    let built_for = |id| module_with("y", RELEASE, true, &format!("kmend_build_id={id}\0"));
    assert_eq!(codes(&fake, &built_for("ff")), [], "without notes there is nothing to compare");
    std::fs::write(fake.path("sys/kernel/notes"), NOTES).unwrap();
    assert_eq!(codes(&fake, &built_for("ff")), [Code::BuildIdDiffers]);
    assert_eq!(codes(&fake, &built_for("01020304")), []);
    assert_eq!(codes(&fake, &livepatch()), [], "other tools name no build");
}

#[test]
fn all_that_the_kernel_would_refuse_it_for_is_told_at_once() {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/ftrace_enabled", "0\n");
    fake.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    fake.patch("other", true, true);
    let all = [Code::FtraceOff, Code::SignatureNeeded, Code::TransitionBusy];
    assert_eq!(codes(&fake, &livepatch()), all);
    fake.patch("other", true, false);
    fake.write("proc/sys/kernel/ftrace_enabled", "1\n");
    fake.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
    assert_eq!(codes(&fake, &livepatch()), []);
    fake.write("sys/module/module/parameters/sig_enforce", "Y\n");
    assert_eq!(codes(&fake, &livepatch()), [Code::SignatureNeeded]);
    assert_eq!(codes(&fake, &signed(&livepatch())), []);
}

/// A module signed with the key of `kmend-sign`'s tests.
fn signed(module: &[u8]) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/keys");
    let files = KeyFiles {
        key: keys.join("p256.pem"),
        certificate: keys.join("p256.crt"),
        passphrase: None,
        hash: Hash::Sha256,
    };
    let signer = Signer::open(&files).map_err(|errors| format!("{errors:?}")).unwrap();
    signer.sign_module(module).unwrap()
}

fn trust(fake: &Fake, name: &str) {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/keys");
    fake.write(&format!("etc/kmend/trusted/{name}"), &std::fs::read_to_string(keys.join(name)).unwrap());
}

#[test]
fn what_a_machine_trusts_must_vouch_for_a_livepatch() {
    let fake = Fake::new();
    let module = signed(&livepatch());
    assert_eq!(codes(&fake, &livepatch()), [], "without certificates everybody is trusted");
    trust(&fake, "rsa.crt");
    assert_eq!(codes(&fake, &livepatch()), [Code::NotSigned]);
    assert_eq!(codes(&fake, &module), [Code::SignerUntrusted]);
    trust(&fake, "p256.crt");
    let candidate = fake.system().check(&[fake.file("y.ko", &module)]).remove(0).unwrap();
    assert_eq!(candidate.signed_by.unwrap().subject, "CN=kmend test P-256");
    let mut changed = module.clone();
    let at = changed.windows(4).position(|bytes| bytes == b"SMP ").unwrap();
    changed[at] = b'X';
    assert_eq!(codes(&fake, &changed), [Code::SignatureWrong]);
    fake.write("etc/kmend/trusted/broken.pem", "no certificate");
    assert_eq!(codes(&fake, &module), [Code::Certificate], "what cannot be read may not weaken the rest");
}

#[test]
fn a_damaged_signature_is_told_where_none_is_needed() {
    let fake = Fake::new();
    let damaged = [livepatch(), b"~Module signature appended~\n".to_vec()].concat();
    assert_eq!(codes(&fake, &damaged), [Code::SignatureDamaged]);
}

#[test]
fn what_an_administrator_knows_better_is_overridden_and_named() {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/ftrace_enabled", "0\n");
    let check = |bytes: &[u8], despite: &[Code]| {
        let checked = fake.system().check_despite(&[fake.file("y.ko", bytes)], despite).remove(0);
        checked.map(|candidate| candidate.despite.iter().map(Coded::code).collect::<Vec<_>>())
    };
    assert_eq!(check(&livepatch(), &OVERRIDABLE).unwrap(), [Code::FtraceOff]);
    assert!(check(&livepatch(), &[Code::FunctionConflict]).is_err());
    assert!(check(&module("y", "5.0.0", true), &[Code::FtraceOff]).is_err(), "one of two");
    fake.write("proc/sys/kernel/ftrace_enabled", "1\n");
    assert_eq!(check(&livepatch(), &OVERRIDABLE).unwrap(), [], "nothing speaks against it");
    trust(&fake, "rsa.crt");
    assert!(
        check(&livepatch(), &[Code::NotSigned]).is_err(),
        "whom the machine trusts is not for a command to say"
    );
}

#[test]
fn a_livepatch_is_not_loaded_twice_by_one_command() {
    let fake = Fake::new();
    let path = fake.file("y.ko", &livepatch());
    let checked = fake.system().check(&[path.clone(), path]);
    assert!(checked[0].is_ok());
    assert!(matches!(&checked[1].as_ref().unwrap_err()[..], [LiveError::AlreadyLoaded(_)]));
}

#[test]
fn a_function_that_a_loaded_livepatch_owns_is_a_conflict_unless_it_is_replaced() {
    let fake = Fake::new();
    fake.patch("first", true, false);
    fake.folder("sys/kernel/livepatch/first/vmlinux/a,1");
    fake.folder("sys/kernel/livepatch/first/vmlinux/b,2");
    let system = fake.system();
    let patches = system.patches().unwrap();
    let candidate = system.check(&[fake.file("y.ko", &livepatch())]).remove(0).unwrap();
    let function =
        |name: &str, position| PatchedFunction { name: name.into(), position, replacement: name.into() };
    let mut module = candidate.module;
    let mut conflicts = |functions: Vec<PatchedFunction>, replace| {
        module.objects = vec![PatchedObject { name: "vmlinux".into(), functions, callbacks: vec![] }];
        module.replace = Some(replace);
        no_room(&module, &patches, &Owners::of(&patches))
    };
    let found = conflicts(vec![function("a", 0), function("b", 1)], false);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "livepatch_y would undo what first does to a");
    assert!(conflicts(vec![function("b", 1)], false).is_empty(), "another function of that name");
    assert!(conflicts(vec![function("a", 0)], true).is_empty());

    module.replace = Some(false);
    let again = kmend_inspect::Inspection { name: "again".into(), ..module.clone() };
    let all = kmend_inspect::Inspection { name: "all".into(), replace: Some(true), ..module.clone() };
    let found = conflicts_in_order(&[module.clone(), again.clone()]);
    assert_eq!(found[0].to_string(), "again would undo what livepatch_y does to a");
    assert!(conflicts_in_order(&[module.clone(), all.clone()]).is_empty());
    assert_eq!(
        conflicts_in_order(&[module, all, again])[0].to_string(),
        "again would undo what all does to a"
    );
}

/// A patch for the consistency engine.
fn for_engine(interface: &str) -> Vec<u8> {
    let more = format!("depends=kmend_engine\0kmend_engine={interface}\0kmend_model=immediate\0");
    module_with("fix", RELEASE, true, &more)
}

fn check_one(fake: &Fake, bytes: &[u8]) -> Result<Candidate, Vec<LiveError>> {
    let path = fake.file("fix.ko", bytes);
    fake.system().check(&[path]).remove(0)
}

#[test]
fn a_patch_for_the_engine_needs_that_very_engine() {
    let fake = Fake::new();
    let error = |fake: &Fake, interface: &str| check_one(fake, &for_engine(interface)).unwrap_err().remove(0);
    assert!(matches!(error(&fake, "0123"), LiveError::EngineMissing));
    fake.engine();
    assert!(matches!(error(&fake, "4567"), LiveError::EngineDiffers { .. }));
    let candidate = check_one(&fake, &for_engine("0123")).unwrap();
    assert_eq!(candidate.module.engine.unwrap().model.as_deref(), Some("immediate"));
    let itself = module_with("kmend_engine", RELEASE, true, "");
    assert!(
        matches!(check_one(&fake, &itself), Err(errors) if matches!(errors[0], LiveError::NotALivepatch { .. }))
    );
}

#[test]
fn kernel_and_engine_do_not_patch_the_same_function() {
    let fake = Fake::new();
    fake.patch("first", true, false);
    fake.folder("sys/kernel/livepatch/first/vmlinux/a,2");
    fake.engine_patch("second", true, false);
    fake.write("sys/kernel/kmend/second/functions", "vmlinux b patched\n");
    fake.engine_patch("third", false, false);
    fake.write("sys/kernel/kmend/third/functions", "vmlinux c living\n");
    let patches = fake.system().patches().unwrap();
    let mut module = check_one(&fake, &for_engine("0123")).unwrap().module;
    let function = |name: &str| PatchedFunction { name: name.into(), position: 0, replacement: name.into() };
    let functions = ["a", "b", "c"].map(function).to_vec();
    module.objects = vec![PatchedObject { name: "vmlinux".into(), functions, callbacks: vec![] }];
    let mut found = |replace, engine: bool| {
        module.replace = Some(replace);
        module.engine = module.engine.clone().filter(|_| engine);
        let errors = no_room(&module, &patches, &Owners::of(&patches));
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let other = "fix is for the consistency engine, and first, which is not, patches a";
    assert_eq!(found(true, true), [other]);
    assert_eq!(found(false, true), ["fix would undo what second does to b", other]);
    assert_eq!(
        found(true, false),
        ["fix is for the kernel's own livepatch, and second, which is not, patches b"]
    );
}

#[test]
fn a_switch_is_one_that_the_engine_has_and_the_patch_bears() {
    let fake = Fake::new();
    fake.engine();
    let system = fake.system();
    let mut module = check_one(&fake, &for_engine("0123")).unwrap().module;
    let switch =
        |model: &str, redirect: &str| Switch { model: Some(model.into()), redirect: Some(redirect.into()) };
    assert!(system.check_switch(&module, &Switch::default()).is_empty());
    let unknown = system.check_switch(&module, &switch("quick", "jump"));
    assert_eq!(unknown.len(), 2);
    assert_eq!(
        unknown[0].to_string(),
        "the consistency engine has no model `quick`: it has hybrid, immediate"
    );
    module.updates = vec!["vmlinux table".into()];
    let weak = system.check_switch(&module, &Switch::default());
    assert!(matches!(weak[..], [LiveError::ModelTooWeak { .. }]));
    assert!(system.check_switch(&module, &switch("hybrid", "ftrace")).is_empty());
    fake.write("sys/kernel/kmend/redirects", "ftrace\njump\n");
    let engine = module.engine.as_mut().unwrap();
    (engine.untraced, engine.stops) = (vec!["f".into()], vec!["hybrid".into()]);
    (engine.model, engine.redirect) = (Some("hybrid".into()), Some("jump".into()));
    assert!(system.check_switch(&module, &switch("hybrid", "jump")).is_empty());
    let unfit = system.check_switch(&module, &switch("immediate", "ftrace"));
    assert!(
        unfit[0]
            .to_string()
            .ends_with("patches f, which ftrace does not know: only model hybrid can switch that")
    );
    assert!(matches!(unfit[1], LiveError::NoStop { what: "redirect", .. }));
    module.engine = None;
    assert!(matches!(
        system.check_switch(&module, &switch("hybrid", "ftrace"))[..],
        [LiveError::NotForEngine(_)]
    ));
}
