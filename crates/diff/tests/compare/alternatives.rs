//! Instructions that boot exchanges for others.

use super::*;

/// A function with two alternatives, as `_static_cpu_has()` makes them (arch/x86/include/asm/cpufeature.h): a jump, and
/// nothing at all.
fn function(name: &str, constant: u32) -> String {
    format!(
        "int {name}(int x) {{
            asm goto(\"1: jmp %l[no]\\n2:\\n\"
                \".pushsection .altinstr_replacement, \\\"ax\\\"\\n3: jmp %l[no]\\n4:\\n.popsection\\n\"
                \".pushsection .altinstructions, \\\"a\\\"\\n\"
                \" .long 1b - ., 3b - .\\n .4byte 117\\n .byte 2b-1b, 4b-3b\\n\"
                \" .long 1b - ., 4b - .\\n .4byte {constant}\\n .byte 2b-1b, 0\\n\"
                \".popsection\" : : : : no);
            return x + 1;
        no:
            return x * 5;
        }}\n"
    )
}

#[test]
fn an_empty_alternative_does_not_depend_on_its_neighbour() {
    let [one, two, other] =
        [("one", 9), ("two", 9), ("two", 10)].map(|(name, number)| function(name, number));
    assert!(diff(&format!("{one}{two}"), &format!("{two}{one}")).unwrap().is_empty());
    let changed = diff(&format!("{one}{two}"), &format!("{other}{one}")).unwrap();
    assert_eq!(functions(&changed), ["two"]);
}
