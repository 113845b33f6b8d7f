//! Images in every layout that kernels have had, read as a whole.

mod seed;

use kmend_kernel::{Image, KernelError, Module};
use kmend_refusal::{Code, Coded};
use seed::kallsyms::{Encoding, Order, covered};
use seed::{BANNER, Kernel, TEXT, Tables};

const ORDERS: [Order; 2] = [Order::AddressesFirst, Order::AddressesLast];

/// Every combination that some kernel had: offsets from their own place came after the order had changed.
fn layouts() -> impl Iterator<Item = Kernel> {
    let encodings =
        [Encoding::Absolute, Encoding::Relative, Encoding::PercpuRelative, Encoding::PlaceRelative];
    let pairs = ORDERS.into_iter().flat_map(move |order| encodings.map(|encoding| (order, encoding)));
    pairs.filter(|&pair| pair != (Order::AddressesFirst, Encoding::PlaceRelative)).flat_map(
        |(order, encoding)| {
            [Tables::All, Tables::NoSeqs].map(|tables| Kernel {
                order,
                encoding,
                tables,
                ..Kernel::default()
            })
        },
    )
}

fn listed(image: &Image) -> Vec<(u8, String, u64)> {
    let all = image.symbols().all().iter();
    all.map(|symbol| (symbol.kind, symbol.name.to_string(), symbol.address)).collect()
}

#[test]
fn kallsyms_of_every_layout_gives_the_same_symbols() {
    for kernel in layouts() {
        let shape = format!("{:?} {:?} {:?}", kernel.order, kernel.encoding, kernel.tables);
        let image = Image::parse(kernel.vmlinux()).unwrap_or_else(|error| panic!("{shape}: {error}"));
        let mut expected = seed::symbols();
        expected.retain(|symbol| covered(kernel.encoding, symbol.2));
        assert_eq!(listed(&image), expected, "{shape}");
    }
}

#[test]
fn positions_count_symbols_of_one_name_by_address() {
    let image = Image::parse(Kernel::default().vmlinux()).unwrap();
    let shows: Vec<_> = image.symbols().named("show").collect();
    assert_eq!(shows.len(), 100);
    assert!(shows.is_sorted_by_key(|symbol| symbol.address));
    let position = image.symbols().position(shows[41]);
    assert_eq!((position.position, position.count), (42, 100));
}

#[test]
fn every_packing_of_a_boot_image_gives_the_same_facts() {
    let vmlinux = Kernel::default().vmlinux();
    for (name, pack) in seed::PACKS {
        let image =
            Image::parse(seed::bzimage(&vmlinux, pack)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.banner(), BANNER, "{name}");
        assert_eq!(image.release(), "6.1.0-9-test", "{name}");
        assert_eq!(image.build_id(), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]), "{name}");
        assert_eq!(listed(&image), seed::symbols(), "{name}");
    }
}

#[test]
fn memory_is_read_by_address_within_one_section() {
    let image = Image::parse(Kernel::default().vmlinux()).unwrap();
    assert_eq!(image.read(TEXT + 0xffe, 2), Some(&[0xc3, 0xc3][..]));
    assert_eq!(image.read(TEXT + 0xffe, 3), None);
    assert_eq!(image.read(TEXT - 1, 1), None);
    assert_eq!(image.section_named(".text").map(|section| section.size), Some(0x1000));
    assert_eq!(image.config(), None);
}

#[test]
fn types_are_read_from_the_image() {
    let image = Image::parse(Kernel::default().vmlinux()).unwrap();
    let pair = image.btf().unwrap().structure("pair").unwrap();
    assert_eq!((pair.size, pair.member("b"), pair.member("c")), (8, Some(4), None));
}

#[test]
fn exports_have_their_crcs_also_where_those_are_referred_to() {
    for relative_crcs in [false, true] {
        let image = Image::parse(Kernel { relative_crcs, ..Kernel::default() }.vmlinux()).unwrap();
        assert_eq!(image.exports().len(), 11);
        let open = &image.exports()["export_3"];
        assert_eq!((open.address, open.crc), (TEXT + 0x118, Some(0x1234_567b)));
        assert_eq!((open.gpl_only, open.namespace.as_deref()), (false, None));
        let gpl = &image.exports()["export_10"];
        assert_eq!((gpl.gpl_only, gpl.namespace.as_deref()), (true, Some("inner")));
    }
}

#[test]
fn without_kallsyms_the_symbol_table_serves() {
    let kernel = Kernel { tables: Tables::None, symtab: true, ..Kernel::default() };
    let image = Image::parse(kernel.vmlinux()).unwrap();
    assert_eq!(image.symbols().named("show").len(), 100);
    let error = Image::parse(Kernel { symtab: false, ..kernel }.vmlinux()).err().unwrap();
    assert_eq!(error.code(), Code::KallsymsNotFound);
}

#[test]
fn a_symbol_table_of_another_build_is_an_error() {
    let kernel = Kernel { symtab: true, ..Kernel::default() };
    let mut vmlinux = kernel.vmlinux();
    assert!(Image::parse(vmlinux.clone()).is_ok());
    // The symbol `weak` of the table, moved by a byte.
    let address = (TEXT + 0xf80).to_le_bytes();
    let at = vmlinux.windows(8).rposition(|window| window == address).unwrap();
    vmlinux[at] += 1;
    let error = Image::parse(vmlinux).err().unwrap();
    assert!(error.to_string().contains("`weak`"), "{error}");
}

#[test]
fn other_machines_and_other_files_are_told_apart() {
    let mut vmlinux = Kernel::default().vmlinux();
    vmlinux[18] = 183;
    assert_eq!(Image::parse(vmlinux).err().unwrap().code(), Code::Architecture);
    assert_eq!(Image::parse(b"hello".to_vec()).err().unwrap().code(), Code::ImageFormat);
    assert_eq!(Image::parse(Vec::new()).err().unwrap().code(), Code::ImageFormat);
    let missing = Image::open("no such image".as_ref()).err().unwrap();
    assert!(matches!(missing, KernelError::Io { .. }), "{missing}");
}

#[test]
fn sections_that_share_the_file_are_an_error() {
    let mut vmlinux = Kernel::default().vmlinux();
    // Every header after the null section's shows all of the file.
    let table = u64::from_le_bytes(vmlinux[40..48].try_into().unwrap()) as usize;
    let length = vmlinux.len() as u64;
    for header in vmlinux[table..].chunks_exact_mut(64).skip(1).filter(|header| header[8] & 2 != 0) {
        header[24..32].fill(0);
        header[32..40].copy_from_slice(&length.to_le_bytes());
    }
    let error = Image::parse(vmlinux).err().unwrap();
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn an_error_in_a_file_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmlinuz");
    std::fs::write(&path, b"hello").unwrap();
    let error = Image::open(&path).err().unwrap();
    assert!(error.to_string().contains("vmlinuz"), "{error}");
    assert_eq!(error.code(), Code::ImageFormat);
}

#[test]
fn a_module_has_exports_and_positions_packed_or_not() {
    let plain = seed::module();
    for bytes in [plain.clone(), seed::gzip(&plain), seed::xz(&plain), seed::zstd(&plain)] {
        let module = Module::parse(&bytes).unwrap();
        assert_eq!((module.name(), module.release()), ("seed", Some("6.1.0-9-test")));
        let knob = &module.exports()["knob"];
        assert_eq!((knob.address, knob.crc), (16, Some(2)));
        assert_eq!((knob.gpl_only, knob.namespace.as_deref()), (true, Some("inner")));
        assert_eq!(module.exports()["frob"].namespace, None);
        let shows: Vec<_> = module.object().symbols_named("show").collect();
        assert!(module.position(shows[0]).unwrap().settled().is_some());
        assert!(module.position(shows[1]).is_none());
        assert!(module.position(shows[2]).unwrap().settled().is_none());
    }
}
