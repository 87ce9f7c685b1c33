//! Tables against gimli's own evaluation, and corrupt ones.
extern crate std;
use super::super::row::BpRule;
use super::*;
use gimli::{CfaRule, RegisterRule, UnwindContext, UnwindContextStorage, X86_64};
use gimli::{UnwindTableRow, X86_64 as Reg};
use std::vec::Vec;

struct Fixed;
impl UnwindContextStorage<usize> for Fixed {
    type Rules = [(gimli::Register, RegisterRule<usize>); 32];
    type Stack = [UnwindTableRow<usize, Self>; 8];
}

unsafe extern "C" {
    fn abort() -> !;
}

/// This binary and libc.
fn modules() -> [Module; 2] {
    let here = find_module(modules as *const () as u64).expect("this binary");
    let libc = find_module(abort as *const () as u64).expect("libc");
    assert_ne!(here, libc);
    [here, libc]
}

/// What a row should be, by gimli's own evaluation; `None` when rows cannot say.
fn expected(row: &UnwindTableRow<usize, Fixed>) -> Option<Row> {
    let ra = row.register(Reg::RA);
    if ra == Some(RegisterRule::Undefined) {
        return Some(Row::of(Kind::End));
    }
    let (kind, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset {
            register: X86_64::RSP,
            offset,
        } => (Kind::Sp, *offset),
        CfaRule::RegisterAndOffset {
            register: X86_64::RBP,
            offset,
        } => (Kind::Bp, *offset),
        _ => return None,
    };
    let (rule, at) = match row.register(Reg::RBP) {
        None | Some(RegisterRule::SameValue) => (BpRule::Same, 0),
        Some(RegisterRule::Undefined) => (BpRule::Lost, 0),
        Some(RegisterRule::Offset(at)) => (BpRule::AtCfa, at),
        _ => return None,
    };
    Row::new(kind, offset, rule, at).filter(|_| ra == Some(RegisterRule::Offset(-8)))
}

// Goal: the small machine says what gimli's full one says. Method: each row of
// each entry of this binary and of libc.
#[test]
fn all_rows_agree_with_gimli() {
    let (mut same, mut special) = (0, Vec::new());
    for module in modules() {
        let tables = module.tables().expect("tables");
        let section = EhFrame::from(EndianSlice::new(tables.frames, NativeEndian));
        let bases = BaseAddresses::default().set_eh_frame(tables.frames_at);
        let mut context = UnwindContext::<usize, Fixed>::new_in();
        let mut entries = section.entries(&bases);
        while let Some(entry) = entries.next().expect("sound") {
            let gimli::CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let fde = partial.parse(EhFrame::cie_from_offset).expect("sound");
            let mut table = fde.rows(&section, &bases, &mut context).expect("sound");
            while let Some(row) = table.next_row().expect("sound") {
                let at = row.start_address();
                let ours = tables.row(at, at).expect("covered");
                match expected(row) {
                    Some(theirs) => assert_eq!(ours, theirs, "{at:#x}"),
                    None => special.push((at, ours.kind())),
                }
                same += 1;
            }
        }
    }
    // What is left: the PLT's arithmetic on rip, realigned frames, the signal
    // frame; and registers a row does not track.
    let count = |kind| special.iter().filter(|(_, k)| *k == kind).count();
    assert!(same > 20_000 && count(Kind::Sp) > 0);
    assert_eq!(count(Kind::Signal), 1, "__restore_rt");
    assert!(count(Kind::Bad) < same / 200, "{special:x?}");
}

// Goal: corrupt tables answer wrong at worst. Method: this binary's, with
// random bytes changed, cut short, and looked up at random addresses.
#[test]
fn corrupt_tables_do_no_harm() {
    let module = modules()[0];
    let sound = module.tables().expect("tables");
    let cut = |bytes: &'static [u8]| bytes[..bytes.len().min(200_000)].to_vec();
    let (mut header, mut frames) = (cut(sound.header), cut(sound.frames));
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut answered = 0;
    for round in 0..200_000 {
        let place = next() as usize % frames.len();
        frames[place] = next() as u8;
        if round % 64 == 0 {
            let place = next() as usize % header.len().min(64 + round);
            header[place] = next() as u8;
        }
        if round % 4096 == 0 {
            header.copy_from_slice(&cut(sound.header));
            frames.copy_from_slice(&cut(sound.frames));
        }
        let tables = Tables {
            header: &header[..header.len() - next() as usize % 128],
            header_at: sound.header_at,
            frames: &frames[..frames.len() - next() as usize % 4096],
            frames_at: sound.frames_at,
        };
        let pc = module.start + next() % (module.end - module.start);
        answered += usize::from(tables.row(pc, pc - 1).is_some());
    }
    assert!(answered > 1000, "{answered}");
}

// Goal: segments are found by their headers and nowhere else. Method: a
// hand-made ELF page with one segment, and garbage.
#[test]
fn segments_bound_what_is_read() {
    let mut page = [0u8; 4096];
    page[..4].copy_from_slice(b"\x7fELF");
    page[32] = 64; // e_phoff
    page[54] = 56; // e_phentsize
    page[56] = 1; // e_phnum
    page[64] = 1; // PT_LOAD
    page[64 + 17] = 0x10; // p_vaddr 0x1000
    page[64 + 33] = 0x20; // p_filesz 0x2000
    assert_eq!(segment_end_of(&page, 0x5000, 0x6000), Some(0x8000));
    assert_eq!(segment_end_of(&page, 0x5000, 0x8000), None);
    page[33] = 0xff; // headers outside the page
    assert_eq!(segment_end_of(&page, 0x5000, 0x6000), None);
    assert_eq!(segment_end_of(&[0; 4096], 0x5000, 0x6000), None);
}
