//! Whether patches change more than the bodies of functions.
//!
//! Most fixes do not, and then no declaration can be another one, and no CRC: genksyms skips bodies (scripts/genksyms/parse.y,
//! `BRACE_PHRASE`). A body is taken for one only if it is written in the kernel's style (Documentation/process/coding-style.rst,
//! section 3): `{` alone on a line below one that ends in `)`, and `}` in the first column. All else counts as
//! declaration, and so do directives within a body.

use crate::edits::Edits;

impl Edits {
    /// Whether all that the patches change is within bodies of functions.
    pub fn keep_declarations(&self) -> bool {
        self.files.values().all(|file| match (&file.original, &file.lines) {
            (Some(original), Some(lines)) => {
                let after = lines.iter().map(|line| line.bytes.as_slice());
                outside_of_bodies(original.split_inclusive(|&byte| byte == b'\n')) == outside_of_bodies(after)
            }
            _ => false,
        })
    }
}

fn outside_of_bodies<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let (mut kept, mut above): (Vec<&[u8]>, &[u8]) = (Vec::new(), b"");
    let mut is_body = false;
    for line in lines {
        let text = line.trim_ascii_end();
        let is_directive = text.trim_ascii_start().starts_with(b"#") || above.ends_with(b"\\");
        is_body = is_body && !text.starts_with(b"}");
        if !is_body || is_directive {
            kept.push(line);
        }
        is_body = is_body || (text == b"{" && above.ends_with(b")"));
        above = text;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "struct s\n{\n\tint a;\n};\n#define M(x) \\\n\tf(x)\nint f(int x)\n{\n\tif (x)\n\t{\n\t\treturn 1;\n\t}\n\
        #define N 1\n\treturn N;\n}\nint g;\n";

    #[track_caller]
    fn check(before: &str, after: &str, keeps: bool) {
        assert!(SOURCE.contains(before));
        let patched = SOURCE.replacen(before, after, 1);
        let outside =
            |text: &str| outside_of_bodies(text.as_bytes().split_inclusive(|&byte| byte == b'\n')).concat();
        assert_eq!(outside(SOURCE) == outside(&patched), keeps);
    }

    #[test]
    fn what_is_in_a_body_declares_nothing() {
        check("return 1;", "return 2;\n\t\tint more;", true);
        check("\treturn N;\n", "", true);
    }

    #[test]
    fn what_is_elsewhere_may_declare_something() {
        check("int a;", "int b;", false);
        check("int g;", "long g;", false);
        check("int f(int x)", "int f(long x)", false);
        check("\tf(x)", "\tg(x)", false);
        check("N 1", "N 2", false);
        check("\treturn N;", "}\nint h;\nint i(void)\n{\n\treturn N;", false);
        check("\treturn N;", "#include <x.h>\n\treturn N;", false);
        check("N 1\n", "N 1 \\\n\t2\n", false);
    }
}
