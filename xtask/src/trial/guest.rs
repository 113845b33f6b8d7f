//! What happens in a trial's guest, and the verdict on it.

use super::expectation::{Check, State, Test};
use anyhow::{Result, bail};
use kmend_kernel::{Module, ModuleTree};
use kmend_store::Kernel;
use kmend_vm::{Accelerator, Machine, Scenario, Step};
use std::path::Path;

/// A scenario under construction: its steps, and which of them are checks.
struct Plan<'a> {
    steps: Vec<Step>,
    /// For each step the check that it is, and the state it is run in.
    checks: Vec<Option<(&'a Check, State)>>,
}

/// Boots the kernel and follows the order of tests/patches/README.md.
pub(crate) fn run(
    kernel: &Kernel,
    accelerator: Accelerator,
    kmend: &Path,
    test: &Test,
    livepatch: &Path,
) -> Result<()> {
    let tree = ModuleTree::open(&kernel.modules)?;
    let module = Module::open(livepatch)?;
    let plan = Plan::new(test, &tree, livepatch, &module)?;
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine = Machine { accelerator, timeout: super::GUEST_TIMEOUT, ..Machine::new(&kernel.image) };
    scenario.kmend = Some(kmend.to_owned());
    scenario.steps = plan.steps;
    let transcript = scenario.run()?;
    let mut complaints = Vec::new();
    for (step, check) in transcript.steps.iter().zip(&plan.checks) {
        if let Some((check, state)) = check {
            let output = step.text();
            let wrong = check.complaints(*state, &output);
            if !wrong.is_empty() {
                complaints.extend(wrong);
                complaints.push(format!("  it printed:\n{}", indented(&shortened(&output))));
            }
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    let console = transcript.console;
    let tail = console[console.len().saturating_sub(10)..].join("\n");
    bail!("{}\nthe console's end:\n{}", complaints.join("\n"), indented(&tail))
}

impl<'a> Plan<'a> {
    fn new(test: &'a Test, tree: &ModuleTree, livepatch: &Path, module: &Module) -> Result<Self> {
        let name = module.name();
        let mut plan = Self { steps: Vec::new(), checks: Vec::new() };
        plan.load_with_dependencies(tree, &test.modules)?;
        plan.load_with_dependencies(tree, &test.late_modules)?;
        for command in &test.setup {
            plan.step(Step::Run { name: "setup".into(), command: command.clone() });
        }
        plan.check(test, State::Before);
        plan.unload_late(test);
        plan.step(Step::Load(livepatch.to_owned()));
        plan.load_late(tree, test);
        plan.check(test, State::Loaded);
        if !test.late_modules.is_empty() {
            plan.unload_late(test);
            plan.load_late(tree, test);
            plan.check(test, State::Loaded);
        }
        plan.step(Step::Unload(name.to_owned()));
        plan.check(test, State::Unloaded);
        // What stays in memory cannot be loaded again.
        if !module.stays() {
            plan.step(Step::Load(livepatch.to_owned()));
            plan.check(test, State::Loaded);
            plan.step(Step::Unload(name.to_owned()));
        }
        Ok(plan)
    }

    fn step(&mut self, step: Step) {
        self.steps.push(step);
        self.checks.push(None);
    }

    fn check(&mut self, test: &'a Test, state: State) {
        for check in &test.checks {
            let name = format!("{}: {}", state.name(), check.command);
            let command = format!("STATE={}\nexport STATE\n{}\n", state.name(), check.command);
            self.steps.push(Step::Run { name, command });
            self.checks.push(Some((check, state)));
        }
    }

    /// Loads modules and what they depend on, each once.
    fn load_with_dependencies(&mut self, tree: &ModuleTree, modules: &[String]) -> Result<()> {
        for module in modules {
            for path in tree.load_order(module)? {
                let step = Step::LoadModule(path);
                if !self.steps.contains(&step) {
                    self.step(step);
                }
            }
        }
        Ok(())
    }

    fn load_late(&mut self, tree: &ModuleTree, test: &Test) {
        for path in test.late_modules.iter().filter_map(|module| tree.path_of(module)) {
            self.step(Step::LoadModule(path.to_owned()));
        }
    }

    fn unload_late(&mut self, test: &Test) {
        for module in test.late_modules.iter().rev() {
            self.step(Step::UnloadModule(module.replace('-', "_")));
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// An output's beginning: a check may print megabytes.
fn shortened(text: &str) -> String {
    text.lines().take(30).map(|line| line.chars().take(160).collect::<String>() + "\n").collect()
}
