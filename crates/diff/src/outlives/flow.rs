//! Where addresses of the livepatch go in its own code.
//!
//! Each function is walked with what its registers may hold, over all its branches, until nothing is added any more; what
//! it passes to other functions of the livepatch, returns to them, and stores into the livepatch's data is added to what is known
//! of these, and all is walked again until that rests, too. All of it only grows and is finite, so it ends.
//!
//! Which arguments a function takes is not known, so a call of another one passes on all that the registers of
//! arguments hold.

use super::callees::{self, Use};
use super::code::{Branch, Code, Place, Step};
use super::{Scope, Thing};
use crate::atoms::{AtomId, AtomKind};
use crate::names;
use iced_x86::{
    Code as Opcode, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a register or a piece of memory may hold the address of.
type Holds = BTreeSet<Thing>;

/// Registers of arguments, in their order (System V ABI for AMD64, 3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
/// Registers that a function may destroy, beside these and RAX, which holds what it returns.
const SCRATCH: [Register; 2] = [Register::R10, Register::R11];

/// What the kernel's jump to a function's return is called (arch/x86/lib/retpoline.S).
const RETURN: &str = "__x86_return_thunk";
/// How the names of its indirect calls and jumps begin.
const INDIRECT: &str = "__x86_indirect_";
/// How a function is called that no name tells.
const BY_POINTER: &str = "a function that a pointer leads to";

/// What the sixteen general registers may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Registers([Holds; 16]);

impl Registers {
    fn index(register: Register) -> Option<usize> {
        let full = register.full_register();
        full.is_gpr64().then(|| full as usize - Register::RAX as usize)
    }

    fn get(&self, register: Register) -> Holds {
        Self::index(register).map(|index| self.0[index].clone()).unwrap_or_default()
    }

    fn set(&mut self, register: Register, holds: Holds) {
        if let Some(index) = Self::index(register) {
            self.0[index] = holds;
        }
    }

    /// Adds what others may hold; whether that is more.
    fn join(&mut self, other: &Registers) -> bool {
        let mut more = false;
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            more |= add(mine, others);
        }
        more
    }

    /// Only what a called function is given.
    fn arguments(&self) -> Registers {
        let mut arguments = Registers::default();
        for register in ARGUMENTS {
            arguments.set(register, self.get(register));
        }
        arguments
    }

    fn after_call(&mut self, returned: Holds) {
        for register in ARGUMENTS.into_iter().chain(SCRATCH) {
            self.set(register, Holds::new());
        }
        self.set(Register::RAX, returned);
    }
}

fn add(to: &mut Holds, more: &Holds) -> bool {
    let before = to.len();
    to.extend(more);
    to.len() > before
}

/// Where something goes.
enum Way<'a> {
    Stored,
    Returned,
    Given(&'a str),
}

/// The function that is walked.
struct Walk {
    function: AtomId,
    /// What lies on its stack.
    stack: Holds,
    /// Whether somebody else may look there.
    stack_is_seen: bool,
    returned: Holds,
}

/// What is known of the livepatch's addresses.
pub(super) struct Flow<'a> {
    scope: Scope<'a>,
    code: Rc<Code>,
    /// What functions are given.
    given: BTreeMap<AtomId, Registers>,
    returned: BTreeMap<AtomId, Holds>,
    /// What lies on the functions' stacks.
    stacks: BTreeMap<AtomId, Holds>,
    /// What data of the livepatch leads to.
    contents: BTreeMap<Thing, Holds>,
    /// What escapes, and how that was first seen.
    pub(super) escaped: BTreeMap<Thing, String>,
    /// The functions that return nothing, by their names in the source.
    without_result: OnceCell<BTreeSet<String>>,
    grown: bool,
}

impl<'a> Flow<'a> {
    pub(super) fn new(scope: Scope<'a>) -> Self {
        let mut contents = BTreeMap::new();
        for &id in scope.kept {
            let atom = scope.patched.atom(id);
            let is_data = matches!(atom.kind, AtomKind::Variable | AtomKind::Content);
            if is_data && !scope.patched.section_of(id).is_code() {
                let things = atom.references.iter().filter_map(|reference| scope.thing(id, reference));
                contents.insert(Thing::Data(id), things.collect());
            }
        }
        Flow {
            scope,
            code: Rc::new(Code::of(scope)),
            given: BTreeMap::new(),
            returned: BTreeMap::new(),
            stacks: BTreeMap::new(),
            contents,
            escaped: BTreeMap::new(),
            without_result: OnceCell::new(),
            grown: false,
        }
    }

    /// Walks all functions until nothing is new.
    pub(super) fn run(&mut self) {
        loop {
            self.grown = false;
            for &id in self.scope.kept {
                if self.scope.patched.section_of(id).is_code() {
                    self.walk(id);
                }
            }
            if !self.grown {
                return;
            }
        }
    }

    /// Everything that an address leads to, itself included.
    pub(super) fn reached_from(&self, thing: Thing) -> Holds {
        let mut reached = Holds::from([thing]);
        let mut waiting = vec![thing];
        while let Some(thing) = waiting.pop() {
            for &next in self.contents.get(&thing).into_iter().flatten() {
                if reached.insert(next) {
                    waiting.push(next);
                }
            }
        }
        reached
    }

    /// Walks one function, or code without a name that nothing else may lead to.
    fn walk(&mut self, function: AtomId) {
        let start = (function, self.scope.patched.atom(function).origin);
        let entry = self.given.get(&function).cloned().unwrap_or_default();
        let stack = self.stacks.get(&function).cloned().unwrap_or_default();
        let mut walk = Walk { function, stack, stack_is_seen: false, returned: Holds::new() };
        let mut known = BTreeMap::from([(start, entry)]);
        let mut waiting = vec![start];
        let mut factory = InstructionInfoFactory::new();
        while let Some(place) = waiting.pop() {
            let mut registers = known.get(&place).cloned().unwrap_or_default();
            let mut place = place;
            // Straight on, until ways meet or part.
            while let Some(next) = self.advance(place, &mut registers, &mut walk, &mut factory) {
                let [only] = next.as_slice() else {
                    for place in next {
                        meet(&mut known, &mut waiting, place, &registers);
                    }
                    break;
                };
                place = *only;
                if known.contains_key(&place) || self.code.hidden.contains_key(&place) {
                    meet(&mut known, &mut waiting, place, &registers);
                    break;
                }
            }
        }
        self.settle(walk);
    }

    /// Whether a caller looks at what a function leaves where results are: not so if its source says that it returns nothing.
    fn returns(&self, function: AtomId) -> bool {
        let patched = self.scope.patched;
        let without = self
            .without_result
            .get_or_init(|| kmend_types::without_result(patched.object).unwrap_or_default());
        !without.contains(&patched.source_name(function))
    }

    /// Adds what was found out about a function.
    fn settle(&mut self, walk: Walk) {
        let Walk { function, stack, stack_is_seen, returned } = walk;
        if stack_is_seen {
            // A string on the stack is gone with it.
            let seen: Holds = stack.iter().copied().filter(|thing| !thing.is_text()).collect();
            self.escape(&seen, function, &Way::Stored);
        }
        self.grown |= add(self.stacks.entry(function).or_default(), &stack);
        if self.scope.is_called_from_outside(function) && !returned.is_empty() && self.returns(function) {
            self.escape(&returned, function, &Way::Returned);
        }
        self.grown |= add(self.returned.entry(function).or_default(), &returned);
    }

    /// Follows one instruction; the result is where it goes on. `None` if there is none.
    fn advance(
        &mut self,
        place: Place,
        registers: &mut Registers,
        walk: &mut Walk,
        factory: &mut InstructionInfoFactory,
    ) -> Option<Vec<Place>> {
        let code = Rc::clone(&self.code);
        let step = code.steps.get(&place)?;
        let mut next = self.follow(place, step, registers, walk, factory);
        next.extend(code.hidden.get(&place).into_iter().flatten());
        Some(next)
    }

    fn follow(
        &mut self,
        place: Place,
        step: &Step,
        registers: &mut Registers,
        walk: &mut Walk,
        factory: &mut InstructionInfoFactory,
    ) -> Vec<Place> {
        let next = (place.0, step.instruction.next_ip());
        match step.instruction.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => {
                self.call(step, registers, walk);
                vec![next]
            }
            FlowControl::UnconditionalBranch => self.jump(step, registers, walk),
            FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => {
                let mut places = self.jump(step, registers, walk);
                places.push(next);
                places
            }
            FlowControl::IndirectBranch => {
                self.outside(BY_POINTER, registers, walk);
                self.code.labels.get(&walk.function).cloned().unwrap_or_default()
            }
            FlowControl::Return => {
                add(&mut walk.returned, &registers.get(Register::RAX));
                Vec::new()
            }
            FlowControl::Next | FlowControl::Interrupt | FlowControl::Exception => {
                let info = factory.info(&step.instruction);
                self.compute(step, info, registers, walk);
                vec![next]
            }
        }
    }

    fn jump(&mut self, step: &Step, registers: &mut Registers, walk: &mut Walk) -> Vec<Place> {
        match &step.branch {
            Some(Branch::Inside(place)) if !self.is_entry(*place) || place.0 == walk.function => vec![*place],
            Some(Branch::Outside(name)) if name == RETURN => {
                add(&mut walk.returned, &registers.get(Register::RAX));
                Vec::new()
            }
            _ => {
                // A call, and a return of what that returns.
                let mut there = registers.clone();
                self.call(step, &mut there, walk);
                add(&mut walk.returned, &there.get(Register::RAX));
                Vec::new()
            }
        }
    }

    fn is_entry(&self, place: Place) -> bool {
        let atom = self.scope.patched.atom(place.0);
        atom.kind == AtomKind::Function && atom.origin == place.1
    }

    fn call(&mut self, step: &Step, registers: &mut Registers, walk: &mut Walk) {
        match &step.branch {
            Some(Branch::Inside(place)) => {
                let arguments = registers.arguments();
                self.grown |= self.given.entry(place.0).or_default().join(&arguments);
                let sees = arguments.0.iter().any(|holds| holds.contains(&Thing::Stack));
                walk.stack_is_seen |= sees;
                registers.after_call(self.returned.get(&place.0).cloned().unwrap_or_default());
            }
            Some(Branch::Outside(name)) if callees::preserves(name) => {}
            Some(Branch::Outside(name)) if name.starts_with(INDIRECT) => {
                self.outside(BY_POINTER, registers, walk);
            }
            Some(Branch::Outside(name)) => self.outside(name, registers, walk),
            None => {
                let before = registers.clone();
                self.outside(BY_POINTER, registers, walk);
                // Paravirtual functions destroy less than others (arch/x86/include/asm/paravirt_types.h).
                *registers = before;
            }
        }
    }

    /// A call of the kernel's.
    fn outside(&mut self, name: &str, registers: &mut Registers, walk: &mut Walk) {
        let given: Holds = ARGUMENTS.iter().flat_map(|&register| registers.get(register)).collect();
        let mut returned = Holds::new();
        match callees::harmless(name) {
            Some(Use::During) => {}
            Some(Use::Returned) => returned = given,
            Some(Use::Copied) => {
                let copied: Holds = given.iter().flat_map(|thing| self.contents_of(*thing, walk)).collect();
                self.escape(&copied, walk.function, &Way::Given(name));
                returned = given;
            }
            None => {
                walk.stack_is_seen |= given.contains(&Thing::Stack);
                let kept = |thing: &Thing| !thing.is_text() || callees::keeps_text(name);
                let kept: Holds = given.into_iter().filter(kept).collect();
                self.escape(&kept, walk.function, &Way::Given(name));
            }
        }
        registers.after_call(returned);
    }

    fn contents_of(&self, thing: Thing, walk: &Walk) -> Holds {
        match thing {
            Thing::Stack => walk.stack.clone(),
            thing => self.contents.get(&thing).cloned().unwrap_or_default(),
        }
    }

    /// An instruction that goes on to the next.
    fn compute(&mut self, step: &Step, info: &InstructionInfo, registers: &mut Registers, walk: &mut Walk) {
        let instruction = &step.instruction;
        match instruction.mnemonic() {
            Mnemonic::Push => return self.push(step, registers, walk),
            Mnemonic::Movsq | Mnemonic::Movsd | Mnemonic::Movsb | Mnemonic::Movsw
                if instruction.is_string_instruction() =>
            {
                let from = registers.get(Register::RSI);
                let copied: Holds = from.iter().flat_map(|thing| self.contents_of(*thing, walk)).collect();
                return self.store_through(&registers.get(Register::RDI), &copied, walk);
            }
            Mnemonic::Stosq => {
                let value = registers.get(Register::RAX);
                return self.store_through(&registers.get(Register::RDI), &value, walk);
            }
            _ => {}
        }
        let (stored, loaded) = self.operands(step, info, registers, walk);
        if !stored.is_empty() && writes_memory(instruction, info) {
            self.store(step, &stored, registers, walk);
        }
        let mut value = stored;
        value.extend(loaded);
        write_registers(instruction, info, &value, registers);
    }

    /// What the operands hold that are no memory, and what is read from memory.
    fn operands(
        &self,
        step: &Step,
        info: &InstructionInfo,
        registers: &Registers,
        walk: &Walk,
    ) -> (Holds, Holds) {
        let instruction = &step.instruction;
        let (mut plain, mut loaded) = (Holds::new(), Holds::new());
        if is_zero(instruction) {
            return (plain, loaded);
        }
        for operand in 0..instruction.op_count() {
            let access = info.op_access(operand);
            match instruction.op_kind(operand) {
                OpKind::Register if reads(access) => {
                    let register = instruction.op_register(operand);
                    if register.size() >= 4 {
                        plain.extend(address(register, registers));
                    }
                }
                OpKind::Memory if instruction.mnemonic() == Mnemonic::Lea => {
                    plain.extend(step.displacement);
                    for register in [instruction.memory_base(), instruction.memory_index()] {
                        plain.extend(address(register, registers));
                    }
                }
                OpKind::Memory if reads(access) && instruction.memory_size().size() == 8 => {
                    loaded.extend(self.load(step, registers, walk));
                }
                OpKind::Memory | OpKind::Register => {}
                _ => plain.extend(step.immediate),
            }
        }
        (plain, loaded)
    }

    /// What a memory operand may hold.
    fn load(&self, step: &Step, registers: &Registers, walk: &Walk) -> Holds {
        if let Some(thing) = step.displacement {
            return self.contents_of(thing, walk);
        }
        let (base, index) = (step.instruction.memory_base(), step.instruction.memory_index());
        let through: Holds = address(base, registers).into_iter().chain(address(index, registers)).collect();
        through.into_iter().flat_map(|thing| self.contents_of(thing, walk)).collect()
    }

    /// A store into a memory operand.
    fn store(&mut self, step: &Step, value: &Holds, registers: &Registers, walk: &mut Walk) {
        if let Some(thing @ Thing::Data(_)) = step.displacement {
            self.grown |= add(self.contents.entry(thing).or_default(), value);
            walk.stack_is_seen |= value.contains(&Thing::Stack);
            return;
        }
        let base = step.instruction.memory_base();
        if base == Register::RSP {
            add(&mut walk.stack, value);
            return;
        }
        self.store_through(&address(base, registers), value, walk);
    }

    /// A store through a pointer. One that may point to the stack may point elsewhere, too.
    fn store_through(&mut self, pointer: &Holds, value: &Holds, walk: &mut Walk) {
        let to_stack = pointer.contains(&Thing::Stack);
        if to_stack {
            add(&mut walk.stack, value);
        }
        let left: Holds = value.iter().copied().filter(|thing| !(to_stack && thing.is_text())).collect();
        walk.stack_is_seen |= !to_stack && left.contains(&Thing::Stack);
        self.escape(&left, walk.function, &Way::Stored);
    }

    /// What is pushed is the seventh argument of a call, or is saved.
    fn push(&mut self, step: &Step, registers: &Registers, walk: &mut Walk) {
        let instruction = &step.instruction;
        let value = match instruction.op0_kind() {
            OpKind::Register => registers.get(instruction.op0_register()),
            OpKind::Memory => self.load(step, registers, walk),
            _ => step.immediate.into_iter().collect(),
        };
        add(&mut walk.stack, &value);
        walk.stack_is_seen |= value.iter().any(|thing| !thing.is_text() && *thing != Thing::Stack);
    }

    fn escape(&mut self, things: &Holds, by: AtomId, way: &Way<'_>) {
        for &thing in things.iter().filter(|thing| **thing != Thing::Stack) {
            if self.escaped.contains_key(&thing) {
                continue;
            }
            let by = self.scope.patched.source_name(by);
            let how = match way {
                Way::Stored => format!("{by}() stores its address"),
                Way::Returned => format!("{by}() returns its address"),
                Way::Given(name) if *name == BY_POINTER => format!("{by}() gives its address to {name}"),
                Way::Given(name) => format!("{by}() gives its address to {}()", names::root(name)),
            };
            self.escaped.insert(thing, how);
            self.grown = true;
        }
    }
}

fn meet(
    known: &mut BTreeMap<Place, Registers>,
    waiting: &mut Vec<Place>,
    place: Place,
    registers: &Registers,
) {
    if let Some(there) = known.get_mut(&place) {
        if there.join(registers) {
            waiting.push(place);
        }
    } else {
        known.insert(place, registers.clone());
        waiting.push(place);
    }
}

/// What a register holds, be it the stack pointer.
fn address(register: Register, registers: &Registers) -> Holds {
    if register == Register::RSP { Holds::from([Thing::Stack]) } else { registers.get(register) }
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes_memory(instruction: &Instruction, info: &InstructionInfo) -> bool {
    (0..instruction.op_count())
        .any(|operand| instruction.op_kind(operand) == OpKind::Memory && writes(info.op_access(operand)))
}

/// Whether it sets a register to zero, whatever that held.
fn is_zero(instruction: &Instruction) -> bool {
    let is_same = instruction.op_count() == 2
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    is_same
        && matches!(
            instruction.code(),
            Opcode::Xor_rm32_r32
                | Opcode::Xor_r32_rm32
                | Opcode::Xor_rm64_r64
                | Opcode::Xor_r64_rm64
                | Opcode::Sub_rm32_r32
                | Opcode::Sub_r32_rm32
                | Opcode::Sub_rm64_r64
                | Opcode::Sub_r64_rm64
        )
}

/// The registers that an instruction writes may hold what it read.
fn write_registers(
    instruction: &Instruction,
    info: &InstructionInfo,
    value: &Holds,
    registers: &mut Registers,
) {
    let mut named = BTreeSet::new();
    for operand in 0..instruction.op_count() {
        let access = info.op_access(operand);
        if instruction.op_kind(operand) != OpKind::Register || !writes(access) {
            continue;
        }
        let register = instruction.op_register(operand);
        named.insert(register.full_register());
        if register.size() < 4 {
            continue;
        }
        let mut holds = value.clone();
        if matches!(access, OpAccess::CondWrite | OpAccess::ReadCondWrite) {
            holds.extend(registers.get(register));
        }
        registers.set(register, holds);
    }
    // What no operand names, such as the halves of a product. A stack pointer is the stack's in any case.
    for used in info.used_registers() {
        let register = used.register().full_register();
        if writes(used.access()) && register != Register::RSP && !named.contains(&register) {
            let mut holds = value.clone();
            holds.extend(registers.get(register));
            registers.set(register, holds);
        }
    }
}
