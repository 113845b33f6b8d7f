//! A linked ELF file: sections at addresses, and a symbol table if there are symbols.

/// `SHF_ALLOC`.
const ALLOC: u64 = 2;
/// `SHF_EXECINSTR`.
const CODE: u64 = 4;
/// Bytes of the ELF header, and of a section header.
const HEADER: usize = 64;

/// One section.
pub struct Part {
    name: String,
    kind: u32,
    flags: u64,
    address: u64,
    data: Vec<u8>,
    link: u32,
    info: u32,
    entsize: u64,
}

impl Part {
    /// A loaded section of data.
    pub fn new(name: &str, address: u64, data: Vec<u8>) -> Part {
        Part { name: name.into(), kind: 1, flags: ALLOC, address, data, link: 0, info: 0, entsize: 0 }
    }

    /// The same as code.
    pub fn code(mut self) -> Part {
        self.flags |= CODE;
        self
    }
}

/// Writes an ELF file.
#[derive(Default)]
pub struct Builder {
    parts: Vec<Part>,
    symbols: Vec<u8>,
    names: Vec<u8>,
}

impl Builder {
    pub fn part(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// A function in the first section.
    pub fn symbol(&mut self, name: &str, address: u64, global: bool) {
        if self.symbols.is_empty() {
            self.symbols.resize(24, 0);
            self.names.push(0);
        }
        self.symbols.extend_from_slice(&(self.names.len() as u32).to_le_bytes());
        self.symbols.extend_from_slice(&[u8::from(global) << 4 | 2, 0, 1, 0]);
        self.symbols.extend_from_slice(&address.to_le_bytes());
        self.symbols.extend_from_slice(&0u64.to_le_bytes());
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        if !self.symbols.is_empty() {
            let strtab = self.parts.len() as u32 + 2;
            let tables = [(".symtab", 2, self.symbols, strtab, 24), (".strtab", 3, self.names, 0, 0)];
            for (name, kind, data, link, entsize) in tables {
                let part = Part { kind, flags: 0, link, info: 1, entsize, ..Part::new(name, 0, data) };
                self.parts.push(part);
            }
        }
        let mut names = vec![0];
        let mut offsets: Vec<u32> = Vec::new();
        self.parts.push(Part { kind: 3, flags: 0, ..Part::new(".shstrtab", 0, Vec::new()) });
        for part in &self.parts {
            offsets.push(names.len() as u32);
            names.extend_from_slice(part.name.as_bytes());
            names.push(0);
        }
        self.parts.last_mut().unwrap().data = names;
        write(&self.parts, &offsets)
    }
}

fn write(parts: &[Part], names: &[u32]) -> Vec<u8> {
    let mut file = vec![0; HEADER];
    let mut headers = vec![0; HEADER];
    for (part, name) in parts.iter().zip(names) {
        file.resize(file.len().next_multiple_of(8), 0);
        headers.extend_from_slice(&name.to_le_bytes());
        headers.extend_from_slice(&part.kind.to_le_bytes());
        for word in [part.flags, part.address, file.len() as u64, part.data.len() as u64] {
            headers.extend_from_slice(&word.to_le_bytes());
        }
        headers.extend_from_slice(&part.link.to_le_bytes());
        headers.extend_from_slice(&part.info.to_le_bytes());
        headers.extend_from_slice(&8u64.to_le_bytes());
        headers.extend_from_slice(&part.entsize.to_le_bytes());
        file.extend_from_slice(&part.data);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    file.extend(headers);
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, EV_CURRENT; no program headers.
    file[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    file[40..48].copy_from_slice(&table.to_le_bytes());
    let count = parts.len() as u16;
    for (at, field) in [(52, HEADER as u16), (58, HEADER as u16), (60, count + 1), (62, count)] {
        file[at..at + 2].copy_from_slice(&field.to_le_bytes());
    }
    file
}
