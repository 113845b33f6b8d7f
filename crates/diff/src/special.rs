//! The one table of sections that are more than code or data.
//!
//! The kernel keeps tables of places in its code: where a WARN sits, which instruction may fault, which jump
//! a static key patches. Such a table's entries follow the function they belong to. Other tables register
//! things (initcalls, exports, parameters) and stay as they are in the running kernel. What is in neither list
//! is unknown, and an unknown section that refers to a changed function is refused.

use kmend_object::Section;

/// What kmend does with a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Ordinary code, data, constants or strings.
    Plain,
    /// A table of places in code: the entries of kept functions are kept.
    Entries {
        /// How many relocations an entry has; the first one refers to the function that owns it.
        relocations: usize,
        /// Whether a difference between entries is a difference of the function. False for notes to objtool
        /// and for what is made from the function's code anyway.
        compared: bool,
    },
    /// Places where the kernel writes a constant into its code at boot ([`crate::runtime`]).
    RuntimePointer,
    /// Code without symbols that a function or one of its entries refers to, such as an alternative's
    /// replacement.
    Fragments,
    /// Objects that belong to the code that refers to them: each copy of the code needs its own.
    PerUse,
    /// Made by objtool or the linker from the code; made afresh for the module.
    Derived,
    /// Registers something once, when the kernel or the module starts. The running kernel has done so.
    Registration(Registers),
    /// Says nothing about the running code.
    Ignored,
    /// Not in this table.
    Unknown,
}

/// What a registering section registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registers {
    /// Exported symbols: what is exported stays so, and what is new is exported to nobody.
    Export,
    /// Module parameters, which users set.
    Parameter,
    /// Code or data of the start: it has run.
    Start,
    /// Descriptions for tracing and probing, which were read at the start.
    Description,
    /// Numbers of types, which are put in at the final link ([`crate::type_ids`]).
    TypeIds,
    /// What the kernel reads of each module when that is loaded: a livepatch may have entries of its own.
    OfModule,
}

/// What happens to the memory that a section's data lie in. It belongs to a variable's identity: patched code takes the
/// living variable for what its own source says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Anybody may write it at any time.
    Writable,
    /// Nobody may write it.
    ReadOnly,
    /// Written until the start is over, and read-only from then on.
    ReadOnlyAfterStart,
    /// Each processor has a copy of its own, elsewhere.
    PerCpu,
    /// Freed when the start is over.
    Start,
    /// Freed in what is built in; kept in a module.
    Exit,
    /// Shared with the hypervisor of an encrypted guest.
    Decrypted,
    /// Not saved when the machine hibernates.
    Unsaved,
    /// Part of a list that something goes through by its bounds.
    Listed,
}

struct Row {
    /// The section's name; with `*` at its end, the beginning of its name.
    name: &'static str,
    treatment: Treatment,
    /// What memory it is; `None` where the section's flags say that.
    memory: Option<Memory>,
}

const fn row(name: &'static str, treatment: Treatment) -> Row {
    Row { name, treatment, memory: None }
}

const fn memory(name: &'static str, treatment: Treatment, memory: Memory) -> Row {
    Row { name, treatment, memory: Some(memory) }
}

const fn entries(name: &'static str, relocations: usize) -> Row {
    row(name, Treatment::Entries { relocations, compared: true })
}

const fn notes(name: &'static str) -> Row {
    row(name, Treatment::Entries { relocations: 1, compared: false })
}

/// Instructions that boot exchanges for others.
pub(crate) const ALTERNATIVES: &str = ".altinstructions";

/// The trampolines that static calls go through (arch/x86/include/asm/static_call.h).
pub(crate) const TRAMPOLINES: &str = ".static_call.text";

/// The first row that fits decides. The kernel file that defines the section stands behind each.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Places in code.
    entries("__bug_table", 2),                      // arch/x86/include/asm/bug.h: bug_addr, file
    entries("__ex_table", 2),                       // arch/x86/include/asm/asm.h: insn, fixup
    entries("__jump_table", 3),                     // arch/x86/include/asm/jump_label.h: code, target, key
    entries(ALTERNATIVES, 2),                       // arch/x86/include/asm/alternative.h: instr, repl
    entries(".parainstructions", 1),                // arch/x86/include/asm/paravirt_types.h, until 6.8
    entries(".smp_locks", 1),                       // arch/x86/include/asm/alternative.h: LOCK_PREFIX
    entries("_kprobe_blacklist", 1),                // include/asm-generic/kprobes.h
    row(".kcfi_traps", Treatment::Entries { relocations: 1, compared: false }), // include/linux/cfi.h, clang
    row("__mcount_loc", Treatment::Entries { relocations: 1, compared: false }), // gcc -mrecord-mcount
    row("__patchable_function_entries", Treatment::Entries { relocations: 1, compared: false }), // gcc, clang
    row("runtime_ptr_*", Treatment::RuntimePointer), // arch/x86/include/asm/runtime-const.h, since 6.11
    // Code beside the function.
    row(".altinstr_replacement", Treatment::Fragments), // arch/x86/include/asm/alternative.h
    row(".altinstr_aux", Treatment::Fragments),     // arch/x86/include/asm/cpufeature.h: _static_cpu_has
    row(".fixup", Treatment::Fragments),            // arch/x86/include/asm/asm.h, until 5.16
    // Data of one use.
    row("__dyndbg", Treatment::PerUse),             // include/linux/dynamic_debug.h
    row("__verbose", Treatment::PerUse),            // the same, until 5.13
    row("__dyndbg_classes", Treatment::PerUse),
    row(".data..Lubsan*", Treatment::PerUse),       // gcc -fsanitize: source locations
    row(".printk_index", Treatment::Ignored),       // include/linux/printk.h: an index of formats for user space
    // Made by objtool (tools/objtool/check.c, orc_gen.c) or by the final link.
    row(".orc_unwind", Treatment::Derived),
    row(".orc_unwind_ip", Treatment::Derived),
    row(".orc_header", Treatment::Derived),
    row(".static_call_sites", Treatment::Derived),
    row(".retpoline_sites", Treatment::Derived),
    row(".return_sites", Treatment::Derived),
    row(".call_sites", Treatment::Derived),
    row(".ibt_endbr_seal", Treatment::Derived),
    row(".cfi_sites", Treatment::Derived),
    row(".sframe", Treatment::Derived),
    row(".eh_frame", Treatment::Derived),
    // Notes to objtool about single instructions; it needs them when it runs on the module.
    row(".discard.addressable", Treatment::Ignored), // include/linux/compiler.h: keeps a symbol alive
    row(".discard.sym_checksum", Treatment::Ignored),
    notes(".discard.*"),                            // include/linux/objtool.h
    // What has been registered.
    row("___ksymtab*", Treatment::Registration(Registers::Export)), // include/linux/export.h
    row("__ksymtab*", Treatment::Registration(Registers::Export)),
    row("___kcrctab*", Treatment::Ignored),
    row("__kcrctab*", Treatment::Ignored),
    row(".export_symbol", Treatment::Registration(Registers::Export)), // since 6.4
    row("__param", Treatment::Registration(Registers::Parameter)), // include/linux/moduleparam.h
    row(".modinfo", Treatment::Ignored),            // include/linux/moduleparam.h
    row("__modver", Treatment::Ignored),
    row(".initcall*", Treatment::Registration(Registers::Start)), // include/linux/init.h
    row(".con_initcall*", Treatment::Registration(Registers::Start)),
    row(".exitcall*", Treatment::Registration(Registers::Start)),
    row(".init.setup", Treatment::Registration(Registers::Start)),
    memory(".init.data*", Treatment::Registration(Registers::Start), Memory::Start), // include/linux/init.h
    memory(".init.rodata*", Treatment::Registration(Registers::Start), Memory::Start),
    memory(".meminit.*", Treatment::Registration(Registers::Start), Memory::Start),
    memory(".exit.data*", Treatment::Registration(Registers::Start), Memory::Exit),
    row("__tracepoints", Treatment::Plain),         // include/linux/tracepoint.h: the tracepoints themselves
    row("__tracepoints_ptrs", Treatment::Registration(Registers::Description)),
    row("__tracepoints_strings", Treatment::Plain),
    row("__tracepoint_str", Treatment::Plain),
    row("_ftrace_events", Treatment::Registration(Registers::Description)), // include/trace/trace_events.h
    row("_ftrace_eval_map", Treatment::Registration(Registers::Description)),
    row("__syscalls_metadata", Treatment::Registration(Registers::Description)), // include/linux/syscalls.h
    row("__bpf_raw_tp_map", Treatment::Registration(Registers::Description)),
    row("_error_injection_whitelist", Treatment::Registration(Registers::Description)),
    row(".static_call_tramp_key", Treatment::Registration(Registers::Description)), // include/linux/static_call.h
    row(TRAMPOLINES, Treatment::Plain),
    row(".BTF_ids*", Treatment::Registration(Registers::TypeIds)), // include/linux/btf_ids.h
    row("___srcu_struct_ptrs", Treatment::Registration(Registers::OfModule)), // include/linux/srcutree.h: srcu_module_coming()
    row("__trace_printk_fmt", Treatment::Registration(Registers::OfModule)), // kernel/trace/trace_printk.c: hold_module_trace_bprintk_format()
    // Notes of the toolchain.
    row(".note*", Treatment::Ignored),
    row(".comment", Treatment::Ignored),
    row(".debug_*", Treatment::Ignored),            // DWARF 5, section 7.1
    row(".BTF*", Treatment::Ignored),
    row(".kmend.*", Treatment::Ignored),            // crates/compile/headers/kmend.h: the author's requests
    row(".kpatch.*", Treatment::Ignored),           // kpatch's kmod/patch/kpatch-macros.h: the same by other names
    row(".llvm*", Treatment::Ignored),
    // Ordinary code and data.
    row(".text*", Treatment::Plain),
    row(".init.text*", Treatment::Plain),
    row(".exit.text*", Treatment::Plain),
    row(".noinstr.text*", Treatment::Plain),
    row(".entry.text*", Treatment::Plain),
    row(".sched.text*", Treatment::Plain),
    row(".lock.text*", Treatment::Plain),
    row(".spinlock.text*", Treatment::Plain),
    row(".cpuidle.text*", Treatment::Plain),
    row(".kprobes.text*", Treatment::Plain),
    row(".irqentry.text*", Treatment::Plain),
    row(".softirqentry.text*", Treatment::Plain),
    row(".ref.text*", Treatment::Plain),
    row(".meminit.text*", Treatment::Plain),
    memory(".data..percpu*", Treatment::Plain, Memory::PerCpu), // include/linux/percpu-defs.h
    memory(".data..ro_after_init*", Treatment::Plain, Memory::ReadOnlyAfterStart), // include/linux/cache.h
    memory(".data..nosave*", Treatment::Plain, Memory::Unsaved), // include/linux/suspend.h: __nosavedata
    memory(".data..decrypted*", Treatment::Plain, Memory::Decrypted), // arch/x86/include/asm/mem_encrypt.h
    memory(".bss..decrypted*", Treatment::Plain, Memory::Decrypted),
    row(".data*", Treatment::Plain),
    row(".ref.data*", Treatment::Plain),
    memory(".ro_after_init*", Treatment::Plain, Memory::ReadOnlyAfterStart),
    row(".bss*", Treatment::Plain),
    row(".rodata*", Treatment::Plain),
    row(".cpuidle*", Treatment::Plain),
];

/// What to do with the section of this name.
pub(crate) fn treatment(name: &str) -> Treatment {
    row_of(name).map_or(Treatment::Unknown, |row| row.treatment)
}

/// What memory the data of a section lie in.
pub(crate) fn memory_of(section: &Section) -> Memory {
    let row = row_of(&section.name);
    let by_flags = if section.is_writable() { Memory::Writable } else { Memory::ReadOnly };
    match row.map(|row| (row.memory, row.treatment)) {
        Some((Some(memory), _)) => memory,
        Some((None, Treatment::Registration(_))) | None => Memory::Listed,
        Some((None, _)) => by_flags,
    }
}

/// The row that a section's name fits, which is one for all sections of a kind.
pub(crate) fn family(name: &str) -> Option<&'static str> {
    row_of(name).map(|row| row.name)
}

fn row_of(name: &str) -> Option<&'static Row> {
    let fits = |row: &&Row| match row.name.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == row.name,
    };
    TABLE.iter().find(fits)
}

/// Where the code for a module's unload lies (include/linux/init.h: `__exit`, which implies notrace).
pub(crate) const EXIT_CODE: &str = ".exit.text";

/// Whether code in it ran once and is gone.
pub(crate) fn is_start_code(name: &str) -> bool {
    name.starts_with(".init.text") || name.starts_with(".meminit.text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_object::elf;

    #[test]
    fn the_first_fitting_row_decides() {
        assert_eq!(treatment(".discard.addressable"), Treatment::Ignored);
        assert!(matches!(treatment(".discard.reachable"), Treatment::Entries { compared: false, .. }));
        assert_eq!(treatment(".data..Lubsan_data3"), Treatment::PerUse);
        assert_eq!(treatment(".data..read_mostly"), Treatment::Plain);
        assert_eq!(treatment("___ksymtab_gpl+foo"), Treatment::Registration(Registers::Export));
        assert_eq!(treatment("kmend_unheard_of"), Treatment::Unknown);
    }

    #[test]
    fn the_table_knows_the_kinds_of_memory_and_the_flags_tell_the_rest() {
        let memory = |name: &str, flags| memory_of(&Section::allocated(name, flags, 1, Vec::new()));
        for (name, flags, expect) in [
            (".data..percpu..read_mostly", elf::SHF_WRITE, Memory::PerCpu),
            (".data..ro_after_init", elf::SHF_WRITE, Memory::ReadOnlyAfterStart),
            (".data..read_mostly", elf::SHF_WRITE, Memory::Writable),
            (".rodata.table", 0, Memory::ReadOnly),
            (".init.rodata", 0, Memory::Start),
            ("___ksymtab+f", 0, Memory::Listed),
            ("kmend_unheard_of", elf::SHF_WRITE, Memory::Listed),
        ] {
            assert_eq!(memory(name, flags), expect, "{name}");
        }
    }
}
