//! The kallsyms tables, in each order and encoding.

/// Where the addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before the names, until 6.3.
    AddressesFirst,
    /// After the tokens, since 6.4.
    AddressesLast,
}

/// How addresses are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Absolute,
    Relative,
    PercpuRelative,
    PlaceRelative,
}

/// A text for every byte: the character itself, and some longer ones.
fn tokens() -> Vec<String> {
    let long = [(1, "function_"), (2, "sho"), (3, "xx"), (200, "tlong_")];
    (0..=255u8)
        .map(|byte| match long.iter().find(|(code, _)| *code == byte) {
            Some((_, text)) => (*text).to_owned(),
            None if byte.is_ascii_graphic() => char::from(byte).to_string(),
            None => String::new(),
        })
        .collect()
}

/// A name packed with the tokens, the longest first.
fn pack(name: &str, tokens: &[String]) -> Vec<u8> {
    let mut codes: Vec<usize> = (0..tokens.len()).filter(|&code| !tokens[code].is_empty()).collect();
    codes.sort_by_key(|&code| std::cmp::Reverse(tokens[code].len()));
    let mut packed = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let code = *codes.iter().find(|&&code| rest.starts_with(tokens[code].as_str())).unwrap();
        packed.push(code as u8);
        rest = &rest[tokens[code].len()..];
    }
    packed
}

fn align(table: &mut Vec<u8>) {
    table.resize(table.len().next_multiple_of(8), 0);
}

/// The tables, to be linked at `at`, which is aligned.
pub fn write(
    symbols: &[(u8, String, u64)],
    order: Order,
    encoding: Encoding,
    seqs: bool,
    at: u64,
) -> Vec<u8> {
    let covered: Vec<_> = symbols.iter().filter(|symbol| covered(encoding, symbol.2)).cloned().collect();
    let symbols = &covered;
    let tokens = tokens();
    let seqs = if seqs { seqs_of_names(symbols) } else { Vec::new() };
    let mut table = Vec::new();
    if order == Order::AddressesFirst {
        table = addresses(symbols, encoding, at);
        align(&mut table);
    }
    names(&mut table, symbols, &tokens);
    if order == Order::AddressesFirst {
        table.extend_from_slice(&seqs);
        align(&mut table);
    }
    write_tokens(&mut table, &tokens);
    if order == Order::AddressesLast {
        let at = at + table.len() as u64;
        table.extend(addresses(symbols, encoding, at));
        align(&mut table);
        table.extend_from_slice(&seqs);
        align(&mut table);
    }
    table
}

fn names(table: &mut Vec<u8>, symbols: &[(u8, String, u64)], tokens: &[String]) {
    table.extend_from_slice(&(symbols.len() as u64).to_le_bytes());
    let start = table.len();
    let mut markers = Vec::new();
    for (number, (kind, name, _)) in symbols.iter().enumerate() {
        if number % 256 == 0 {
            markers.push((table.len() - start) as u32);
        }
        let packed = pack(&format!("{}{name}", char::from(*kind)), tokens);
        if packed.len() < 0x80 {
            table.push(packed.len() as u8);
        } else {
            table.extend_from_slice(&[packed.len() as u8 | 0x80, (packed.len() >> 7) as u8]);
        }
        table.extend(packed);
    }
    align(table);
    table.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    align(table);
}

fn write_tokens(table: &mut Vec<u8>, tokens: &[String]) {
    let start = table.len();
    let mut index = Vec::new();
    for token in tokens {
        index.extend_from_slice(&((table.len() - start) as u16).to_le_bytes());
        table.extend_from_slice(token.as_bytes());
        table.push(0);
    }
    align(table);
    table.extend(index);
    align(table);
}

/// The addresses, and the base if the encoding has one.
fn addresses(symbols: &[(u8, String, u64)], encoding: Encoding, at: u64) -> Vec<u8> {
    // Only the per-CPU encoding can tell small addresses beside large ones; see `covered`.
    let base = symbols.iter().map(|symbol| symbol.2).find(|&address| address > 1 << 32).unwrap();
    let mut table = Vec::new();
    for (number, &(_, _, address)) in symbols.iter().enumerate() {
        match encoding {
            Encoding::Absolute => table.extend_from_slice(&address.to_le_bytes()),
            Encoding::Relative => table.extend_from_slice(&(address.wrapping_sub(base) as u32).to_le_bytes()),
            Encoding::PlaceRelative => {
                let place = at + number as u64 * 4;
                table.extend_from_slice(&(address.wrapping_sub(place) as u32).to_le_bytes());
            }
            Encoding::PercpuRelative => {
                let entry = if address < base { address } else { base.wrapping_sub(1).wrapping_sub(address) };
                table.extend_from_slice(&(entry as u32).to_le_bytes());
            }
        }
    }
    align(&mut table);
    if matches!(encoding, Encoding::Relative | Encoding::PercpuRelative) {
        table.extend_from_slice(&base.to_le_bytes());
    }
    table
}

/// Whether the encoding can tell this address: those that count from a base reach 4 GiB at most, which is
/// why kernels with them have their per-CPU symbols elsewhere.
pub fn covered(encoding: Encoding, address: u64) -> bool {
    address > 1 << 32 || matches!(encoding, Encoding::Absolute | Encoding::PercpuRelative)
}

fn seqs_of_names(symbols: &[(u8, String, u64)]) -> Vec<u8> {
    let mut order: Vec<usize> = (0..symbols.len()).collect();
    order.sort_by_key(|&number| &symbols[number].1);
    order.into_iter().flat_map(|number| [(number >> 16) as u8, (number >> 8) as u8, number as u8]).collect()
}
