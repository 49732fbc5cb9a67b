//! AMX in software, for tests on machines without it: the CPU doesn't know these instructions, and the handler of
//! SIGILL does what Intel's Software Developer's Manual says of them.

use std::{cell::Cell, slice};

use half::bf16;
use nix::{
    libc::{self, REG_RIP, c_int, c_void, siginfo_t, ucontext_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

#[derive(Clone, Copy)]
struct Registers {
    /// Rows and bytes of a row, of each tile; none before `ldtilecfg` and after `tilerelease`.
    shapes: [(usize, usize); 8],
    tiles: [[[u8; ROW_BYTES]; ROWS]; 8],
}

const RELEASED: Registers = Registers {
    shapes: [(0, 0); 8],
    tiles: [[[0; ROW_BYTES]; ROWS]; 8],
};

thread_local! {
    static REGISTERS: Cell<Registers> = const { Cell::new(RELEASED) };
}

/// Has instructions done that this machine doesn't know.
pub(super) fn start() {
    let handler = SigHandler::SigAction(handle);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    #[expect(unsafe_code, reason = "a handler of a signal")]
    // SAFETY: it allocates nothing, locks nothing, and touches what the instruction would have touched.
    unsafe { sigaction(Signal::SIGILL, &action) }.expect("SIGILL can be handled");
}

/// Numbers of the general registers, as instructions know them.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Bytes of an instruction, read one after another.
struct Reader(*const u8);

impl Reader {
    #[expect(unsafe_code, reason = "instructions are read where they are")]
    fn byte(&mut self) -> u8 {
        // SAFETY: the instruction was fetched from here.
        let byte = unsafe { self.0.read() };
        self.0 = self.0.wrapping_add(1);
        byte
    }
}

/// Where an operand in memory is: its first row, and how far the next one is from it.
struct Operand {
    first: usize,
    stride: usize,
}

impl Operand {
    #[expect(unsafe_code, reason = "the instruction names an address")]
    fn row(&self, row: usize, bytes: usize) -> &'static mut [u8] {
        let at = self.first.wrapping_add(row.wrapping_mul(self.stride));
        // SAFETY: the instruction would read or write here.
        unsafe { slice::from_raw_parts_mut(at as *mut u8, bytes) }
    }
}

extern "C" fn handle(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel hands over a pointer")]
    // SAFETY: it is to the registers of this thread.
    let general = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let mut reader = Reader(general[REG_RIP as usize] as *const u8);
    let mut registers = REGISTERS.get();
    if step(&mut reader, general, &mut registers).is_none() {
        // Unknown here, too.
        std::process::abort();
    }
    REGISTERS.set(registers);
    general[REG_RIP as usize] = reader.0 as i64;
}

/// Does one instruction. They have VEX prefixes of three bytes, and are in the map 0F38.
fn step(reader: &mut Reader, general: &[i64; 23], registers: &mut Registers) -> Option<()> {
    let [escape, second, third, opcode] = [(); 4].map(|()| reader.byte());
    if escape != 0xC4 || second & 0x1F != 2 || third & 0x84 != 0 {
        return None;
    }
    let (prefix, modrm) = (third & 3, reader.byte());
    let (register, operand) = (usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let in_memory = modrm >> 6 != 3;
    let place = in_memory
        .then(|| place(reader, modrm, second, general))
        .flatten();
    let (rows, bytes) = registers.shapes[register];
    match (opcode, prefix, place) {
        // ldtilecfg
        (0x49, 0, Some(place)) => {
            *registers = RELEASED;
            let shapes = place.row(0, 64);
            assert_eq!(shapes[..2], [1, 0], "palette 1, from the first row");
            for (i, shape) in registers.shapes.iter_mut().enumerate() {
                let bytes = u16::from_le_bytes([shapes[16 + 2 * i], shapes[17 + 2 * i]]);
                *shape = (shapes[48 + i].into(), bytes.into());
            }
        }
        // tilerelease
        (0x49, 0, None) if modrm == 0xC0 => *registers = RELEASED,
        // tilezero
        (0x49, 3, None) if rows > 0 => registers.tiles[register] = RELEASED.tiles[0],
        // tileloadd
        (0x4B, 3, Some(place)) if rows > 0 => {
            for row in 0..rows {
                let from = place.row(row, bytes);
                registers.tiles[register][row][..bytes].copy_from_slice(from);
            }
        }
        // tilestored
        (0x4B, 2, Some(place)) if rows > 0 => {
            for row in 0..rows {
                let to = place.row(row, bytes);
                to.copy_from_slice(&registers.tiles[register][row][..bytes]);
            }
        }
        // tdpbf16ps
        (0x5C, 2, None) if rows > 0 => {
            let right = usize::from(!third >> 3 & 0xF);
            let (left, right) = (&registers.tiles[operand], &registers.tiles[right]);
            registers.tiles[register] = sums(&registers.tiles[register], left, right);
        }
        _ => return None,
    }
    Some(())
}

type Tile = [[u8; ROW_BYTES]; ROWS];

/// Adds the products of whole tiles of pairs.
fn sums(sums: &Tile, left: &Tile, right: &Tile) -> Tile {
    let number = |row: &[u8; ROW_BYTES], i: usize| {
        let number = bf16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32();
        if number.is_subnormal() { 0.0 } else { number }
    };
    let mut to = *sums;
    for (to, left) in to.iter_mut().zip(left) {
        for (n, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [even, odd] = [0, 1].map(|half| {
                right.iter().enumerate().fold(0.0, |sum: f32, (k, right)| {
                    number(left, 2 * k + half).mul_add(number(right, 2 * n + half), sum)
                })
            });
            *to = (f32::from_le_bytes(*to) + (even + odd)).to_le_bytes();
        }
    }
    to
}

/// Reads an operand in memory with a scaled index, or without any.
fn place(reader: &mut Reader, modrm: u8, second: u8, general: &[i64; 23]) -> Option<Operand> {
    // The prefix has the fourth bits of both, turned over.
    let value = |low: u8, turned: u8| {
        let number = usize::from(low & 7) | if second & turned == 0 { 8 } else { 0 };
        general[GENERAL[number] as usize] as usize
    };
    let (base, stride) = if modrm & 7 == 4 {
        let scaled = reader.byte();
        (scaled, value(scaled >> 3, 0x40) << (scaled >> 6))
    } else {
        (modrm, 0)
    };
    if modrm >> 6 == 0 && base & 7 == 5 {
        // There is no base.
        return None;
    }
    let offset = match modrm >> 6 {
        1 => i64::from(reader.byte().cast_signed()),
        2 => i64::from(i32::from_le_bytes([(); 4].map(|()| reader.byte()))),
        _ => 0,
    };
    let first = value(base, 0x20).wrapping_add(offset as usize);
    Some(Operand { first, stride })
}
