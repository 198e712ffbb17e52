//! Code objects: from the bytes of an ELF file, or of a bundle of them, to kernels in memory.
//!
//! Formats: LLVM's "User Guide for AMDGPU Backend" (code object versions 4 to 6, kernel
//! descriptor, metadata note) and "Clang Offload Bundler" (bundle header).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object as _, ObjectSymbol};
use serde::Deserialize;

use crate::Chip;
use crate::memory::Memory;
use crate::program::Program;

/// Bytes of memory that one code object may ask for: more is a corrupt header.
const MAX_IMAGE_BYTES: u64 = 4 << 30;
/// Bytes of machine code that are decoded: more is a corrupt header.
const MAX_CODE_BYTES: u64 = 64 << 20;
/// Start of clang's offload bundles.
const BUNDLE_MAGIC: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
/// Start of compressed bundles.
const COMPRESSED_MAGIC: &[u8] = b"CCOB";
/// Bytes of a kernel descriptor.
const DESCRIPTOR_BYTES: usize = 64;
/// Where a kernel whose arguments are preloaded is entered: behind the loads for older firmware.
const PRELOAD_ENTRY: u64 = 256;

/// The bit of KERNEL_CODE_PROPERTIES that says that the need of private memory is not known.
const USES_DYNAMIC_STACK: u32 = 11;
/// Private memory of a work-item in that case: the most that HIP's runtime gives.
const DYNAMIC_STACK_BYTES: u32 = 16 << 10;

/// Why a code object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not an ELF file or a bundle, or one that breaks its own format.
    #[error("not a valid code object: {0}")]
    Malformed(String),
    /// For another processor.
    #[error(
        "the code object is for {found}, the emulated GPU is {wanted}: compile it for {wanted}"
    )]
    WrongChip {
        /// What the file says.
        found: String,
        /// The emulated chip.
        wanted: Chip,
    },
    /// A compressed bundle.
    #[error("the offload bundle is compressed: rebuild it with --no-offload-compress")]
    Compressed,
    /// Device memory is exhausted.
    #[error("no device memory for the {0} bytes of the code object")]
    OutOfMemory(u64),
}

/// Type of the note that holds the metadata.
const METADATA_NOTE: u32 = 32;

/// Relocation types of the AMDGPU ABI.
mod relocation_type {
    pub const NONE: u32 = 0;
    pub const ABS32_LO: u32 = 1;
    pub const ABS32_HI: u32 = 2;
    pub const ABS64: u32 = 3;
    pub const REL32: u32 = 4;
    pub const REL64: u32 = 5;
    pub const ABS32: u32 = 6;
    pub const REL32_LO: u32 = 10;
    pub const REL32_HI: u32 = 11;
    pub const RELATIVE64: u32 = 13;
}

fn malformed(what: impl ToString) -> ObjectError {
    ObjectError::Malformed(what.to_string())
}

/// A kernel argument, as the metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Argument {
    /// Byte in the kernel-argument segment.
    #[serde(rename = ".offset")]
    pub offset: u32,
    /// Bytes.
    #[serde(rename = ".size")]
    pub size: u32,
    /// `by_value`, `global_buffer`, `hidden_block_count_x`, ...
    #[serde(rename = ".value_kind")]
    pub kind: String,
    /// Name in the source, if it is known.
    #[serde(rename = ".name", default)]
    pub name: String,
}

impl Argument {
    /// Filled by the runtime, not by the program.
    pub fn is_hidden(&self) -> bool {
        self.kind.starts_with("hidden_")
    }
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "amdhsa.kernels", default)]
    kernels: Vec<KernelMetadata>,
}

#[derive(Deserialize)]
struct KernelMetadata {
    #[serde(rename = ".name")]
    name: String,
    #[serde(rename = ".symbol")]
    symbol: String,
    #[serde(rename = ".args", default)]
    arguments: Vec<Argument>,
    #[serde(rename = ".kernarg_segment_size", default)]
    kernarg_size: u32,
    #[serde(rename = ".max_flat_workgroup_size", default)]
    max_workgroup_size: u32,
    #[serde(rename = ".wavefront_size", default)]
    lanes: u32,
    #[serde(rename = ".sgpr_count", default)]
    sgprs: u32,
    #[serde(rename = ".vgpr_spill_count", default)]
    vgpr_spills: u32,
    #[serde(rename = ".sgpr_spill_count", default)]
    sgpr_spills: u32,
}

/// The 64 bytes that tell the hardware how to start a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes of static LDS.
    pub lds_bytes: u32,
    /// Bytes of private memory per work-item.
    pub scratch_bytes: u32,
    /// Bytes of kernel arguments.
    pub kernarg_size: u32,
    /// Entry, relative to the descriptor.
    pub entry_offset: i64,
    /// COMPUTE_PGM_RSRC1 to 3.
    pub rsrc: [u32; 3],
    /// KERNEL_CODE_PROPERTIES.
    pub properties: u16,
    /// Dwords of arguments that are preloaded into scalar registers.
    pub preload_dwords: u16,
    /// First dword of the arguments that is preloaded.
    pub preload_offset: u16,
}

impl Descriptor {
    fn parse(bytes: &[u8; DESCRIPTOR_BYTES]) -> Descriptor {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let preload = word(56) >> 16;
        Descriptor {
            lds_bytes: word(0),
            scratch_bytes: word(4),
            kernarg_size: word(8),
            entry_offset: i64::from_le_bytes(std::array::from_fn(|i| bytes[16 + i])),
            rsrc: [word(48), word(52), word(44)],
            properties: word(56) as u16,
            preload_dwords: (preload & 0x7f) as u16,
            preload_offset: (preload >> 7) as u16,
        }
    }

    /// Bytes of private memory of a work-item. Where recursion leaves the need open, HIP gives as
    /// much as its stack limit allows.
    fn private_bytes(&self) -> u32 {
        let fixed = self.scratch_bytes;
        if self.property(USES_DYNAMIC_STACK) { fixed.max(DYNAMIC_STACK_BYTES) } else { fixed }
    }

    /// Whether a bit of KERNEL_CODE_PROPERTIES is set.
    pub fn property(&self, bit: u32) -> bool {
        self.properties >> bit & 1 != 0
    }

    /// Vector registers and, of them, accumulation registers that a wave is given.
    fn vector_registers(&self, chip: Chip, lanes: u32) -> (u32, u32) {
        let field = (self.rsrc[0] & 0x3f) + 1;
        if chip.is_rdna() {
            return (field * if lanes == 32 { 8 } else { 4 }, 0);
        }
        let total = field * 8;
        let first_accumulator = ((self.rsrc[2] & 0x3f) + 1) * 4;
        let accumulators = total.saturating_sub(first_accumulator);
        (total - accumulators, accumulators)
    }
}

/// A kernel, ready to be launched.
pub struct Kernel {
    /// Name in the source language.
    pub name: String,
    /// The chip that it was compiled for.
    pub chip: Chip,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Address of the descriptor.
    pub descriptor_address: u64,
    /// Address of the first instruction that a wave executes.
    pub entry: u64,
    /// Bytes of kernel arguments, hidden ones included.
    pub kernarg_size: u32,
    /// The arguments.
    pub arguments: Vec<Argument>,
    /// Bytes of static LDS.
    pub lds_bytes: u32,
    /// Bytes of private memory per work-item.
    pub scratch_bytes: u32,
    /// Vector registers that a wave is given, without accumulation registers.
    pub vgprs: u32,
    /// Accumulation registers that a wave is given.
    pub agprs: u32,
    /// Scalar registers, as the metadata says.
    pub sgprs: u32,
    /// Vector registers that the compiler spilled.
    pub vgpr_spills: u32,
    /// Scalar registers that the compiler spilled.
    pub sgpr_spills: u32,
    /// 32 or 64.
    pub lanes: u32,
    /// Work-items that a workgroup may have.
    pub max_workgroup_size: u32,
    code: Arc<Code>,
}

impl Kernel {
    /// The decoded code object, decoded at the first call.
    pub fn program(&self) -> &Program {
        self.code.program(self.lanes)
    }

    /// Source file and line of an address, where the object has debug information.
    pub fn source_line(&self, address: u64) -> Option<String> {
        source_line(&self.code.elf, address.checked_sub(self.code.base)?)
    }

    /// Function and offset of an address: `gemm+0x40`.
    pub fn symbolize(&self, address: u64) -> String {
        let below = self.code.functions.range(..=address).next_back();
        match below {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }

    /// Functions of the code object by address.
    pub fn functions(&self) -> &BTreeMap<u64, String> {
        &self.code.functions
    }

    /// Load address of the code object: an address less this is the ELF file's own.
    pub fn image_address(&self) -> u64 {
        self.code.base
    }

    /// Machine code of the whole object and the address of its first byte.
    pub fn code(&self) -> (&[u8], u64) {
        (&self.code.text, self.code.text_address)
    }
}

/// What the kernels of one code object share.
struct Code {
    chip: Chip,
    /// Load address of the image.
    base: u64,
    /// Bytes of the executable segment, relocated, and their address.
    text: Vec<u8>,
    text_address: u64,
    /// The file, for debug information.
    elf: Vec<u8>,
    functions: BTreeMap<u64, String>,
    /// Decoded for 32 and 64 lanes.
    programs: [OnceLock<Program>; 2],
    /// Keeps the image alive as long as a kernel of it.
    _image: Image,
}

impl Code {
    fn program(&self, lanes: u32) -> &Program {
        let slot = &self.programs[usize::from(lanes == 64)];
        slot.get_or_init(|| Program::decode(&self.text, self.text_address, self.chip, lanes))
    }
}

/// Device memory of a loaded code object.
struct Image {
    memory: Arc<Memory>,
    base: u64,
}

impl Drop for Image {
    fn drop(&mut self) {
        self.memory.free(self.base);
    }
}

/// A loaded code object.
pub struct Object {
    kernels: BTreeMap<String, Arc<Kernel>>,
    symbols: BTreeMap<String, (u64, u64)>,
}

impl Object {
    /// Loads an ELF code object, or the one for `chip` of an offload bundle, into `memory`.
    pub fn load(bytes: &[u8], chip: Chip, memory: &Arc<Memory>) -> Result<Object, ObjectError> {
        let elf = select(bytes, chip)?;
        let file = ElfFile64::<Endianness>::parse(elf).map_err(malformed)?;
        check_target(&file, chip)?;
        let (image, layout) = place(&file, memory)?;
        let base = image.base;
        relocate(&file, &image)?;
        let symbols = symbols(&file, base, layout.bytes);
        let functions = functions(&file, base);
        let (text, text_address) = text(&layout, &image)?;
        let metadata = metadata(&file)?;
        let code = Arc::new(Code {
            chip,
            base,
            text,
            text_address,
            elf: elf.to_vec(),
            functions,
            programs: [OnceLock::new(), OnceLock::new()],
            _image: image,
        });
        let mut kernels = BTreeMap::new();
        for entry in metadata.kernels {
            let kernel = kernel(entry, &symbols, &code, memory)?;
            kernels.insert(kernel.name.clone(), Arc::new(kernel));
        }
        Ok(Object { kernels, symbols })
    }

    /// Its kernels, by name.
    pub fn kernels(&self) -> impl Iterator<Item = &Arc<Kernel>> {
        self.kernels.values()
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<Arc<Kernel>> {
        self.kernels.get(name).cloned()
    }

    /// Address and size in bytes of a global variable.
    pub fn symbol(&self, name: &str) -> Option<(u64, u64)> {
        self.symbols.get(name).copied()
    }
}

/// The ELF file for `chip`: the bytes themselves, or an entry of a bundle.
fn select(bytes: &[u8], chip: Chip) -> Result<&[u8], ObjectError> {
    if bytes.starts_with(COMPRESSED_MAGIC) {
        return Err(ObjectError::Compressed);
    }
    let Some(mut rest) = bytes.strip_prefix(BUNDLE_MAGIC) else { return Ok(bytes) };
    let mut next = || -> Option<u64> {
        let (word, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        Some(u64::from_le_bytes(*word))
    };
    let count = next().ok_or_else(|| malformed("the bundle's header is cut off"))?;
    let mut found = Vec::new();
    for _ in 0..count {
        let cut = || malformed("an entry of the bundle's header is cut off");
        let mut next = || -> Option<u64> {
            let (word, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*word))
        };
        let (offset, size) = (next().ok_or_else(cut)?, next().ok_or_else(cut)?);
        let length = usize::try_from(next().ok_or_else(cut)?).map_err(|_| cut())?;
        let (id, tail) = rest.split_at_checked(length).ok_or_else(cut)?;
        rest = tail;
        let id = String::from_utf8_lossy(id).into_owned();
        // "hipv4-amdgcn-amd-amdhsa--gfx942:xnack-"
        let processor = id.rsplit("--").next().unwrap_or("").split(':').next().unwrap_or("");
        if processor == chip.name() {
            let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
            let entry = range.and_then(|(at, size)| bytes.get(at..at.checked_add(size)?));
            return entry.ok_or_else(|| malformed(format!("entry {id} is beyond the end")));
        }
        found.push(id);
    }
    Err(ObjectError::WrongChip { found: found.join(", "), wanted: chip })
}

/// Machine numbers of the ELF header's flags.
fn machine_number(chip: Chip) -> u32 {
    match chip {
        Chip::Gfx90a => 0x3f,
        Chip::Gfx942 => 0x4c,
        Chip::Gfx950 => 0x4f,
        Chip::Gfx1100 => 0x41,
        Chip::Gfx1151 => 0x4a,
        Chip::Gfx1201 => 0x4e,
    }
}

fn check_target(file: &ElfFile64<'_>, chip: Chip) -> Result<(), ObjectError> {
    let header = file.elf_header();
    let machine = header.e_machine.get(Endianness::Little);
    if machine != elf::EM_AMDGPU {
        return Err(malformed(format!("an ELF file for machine {machine}, not for AMD GPUs")));
    }
    let version = header.e_ident.abi_version;
    if !(2..=4).contains(&version) {
        let name = format!("ABI version {version}; code objects 4, 5 and 6 are known");
        return Err(malformed(name));
    }
    let number = header.e_flags.get(Endianness::Little).0 & 0xff;
    if number != machine_number(chip) {
        let other = Chip::ALL.into_iter().find(|chip| machine_number(*chip) == number);
        let found = other.map_or(format!("machine {number:#x}"), |chip| chip.to_string());
        return Err(ObjectError::WrongChip { found, wanted: chip });
    }
    Ok(())
}

/// Where the segments are.
struct Layout {
    /// Bytes of the image.
    bytes: u64,
    /// Executable segments: offset in the image and bytes.
    executable: Vec<(u64, u64)>,
}

/// Copies the loadable segments into device memory.
fn place(file: &ElfFile64<'_>, memory: &Arc<Memory>) -> Result<(Image, Layout), ObjectError> {
    let endian = Endianness::Little;
    let mut layout = Layout { bytes: 0, executable: Vec::new() };
    let mut copies = Vec::new();
    for header in file.elf_program_headers() {
        if header.p_type(endian) != elf::PT_LOAD {
            continue;
        }
        let (start, size) = (header.p_vaddr(endian), header.p_memsz(endian));
        let data = header.data(endian, file.data()).map_err(|()| malformed("a cut-off segment"))?;
        let end = start.checked_add(size).filter(|end| *end <= MAX_IMAGE_BYTES);
        let end =
            end.ok_or_else(|| malformed(format!("a segment of {size} bytes at {start:#x}")))?;
        if data.len() as u64 > size {
            return Err(malformed("a segment with more bytes in the file than in memory"));
        }
        layout.bytes = layout.bytes.max(end);
        if header.p_flags(endian).0 & elf::PF_X.0 != 0 {
            layout.executable.push((start, size));
        }
        copies.push((start, data));
    }
    let base = memory.allocate(layout.bytes, "code object");
    let base = base.ok_or(ObjectError::OutOfMemory(layout.bytes))?;
    let image = Image { memory: memory.clone(), base };
    memory.fill(base, 0, layout.bytes).map_err(malformed)?;
    for (start, data) in copies {
        memory.write(base + start, data).map_err(malformed)?;
    }
    Ok((image, layout))
}

/// Applies dynamic relocations.
fn relocate(file: &ElfFile64<'_>, image: &Image) -> Result<(), ObjectError> {
    let Some(relocations) = file.dynamic_relocations() else { return Ok(()) };
    for (offset, relocation) in relocations {
        let object::RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
        let target = match relocation.target() {
            object::RelocationTarget::Symbol(index) => {
                let table = file.dynamic_symbol_table();
                let symbol =
                    table.and_then(|t| object::ObjectSymbolTable::symbol_by_index(&t, index).ok());
                let symbol = symbol.filter(|symbol| !symbol.is_undefined());
                let symbol =
                    symbol.ok_or_else(|| malformed("an undefined symbol is referred to"))?;
                symbol.address()
            }
            _ => 0,
        };
        let place = image.base.wrapping_add(offset);
        let value = image.base.wrapping_add(target).wrapping_add(relocation.addend() as u64);
        let relative = value.wrapping_sub(place);
        let bytes = match r_type.0 {
            relocation_type::NONE => continue,
            relocation_type::ABS64 | relocation_type::RELATIVE64 => value.to_le_bytes().to_vec(),
            relocation_type::REL64 => relative.to_le_bytes().to_vec(),
            relocation_type::ABS32 | relocation_type::ABS32_LO => {
                (value as u32).to_le_bytes().to_vec()
            }
            relocation_type::ABS32_HI => ((value >> 32) as u32).to_le_bytes().to_vec(),
            relocation_type::REL32 | relocation_type::REL32_LO => {
                (relative as u32).to_le_bytes().to_vec()
            }
            relocation_type::REL32_HI => ((relative >> 32) as u32).to_le_bytes().to_vec(),
            other => return Err(malformed(format!("relocation type {other} is not known"))),
        };
        image.memory.write(place, &bytes).map_err(malformed)?;
    }
    Ok(())
}

/// Defined symbols that lie within the image.
fn symbols(file: &ElfFile64<'_>, base: u64, bytes: u64) -> BTreeMap<String, (u64, u64)> {
    let all = file.symbols().chain(file.dynamic_symbols());
    let defined = all.filter(|symbol| symbol.is_definition() || symbol.size() > 0);
    let inside = defined.filter(|symbol| {
        symbol.address().checked_add(symbol.size()).is_some_and(|end| end <= bytes)
    });
    inside
        .filter_map(|symbol| {
            let name = symbol.name().ok()?.to_string();
            Some((name, (base + symbol.address(), symbol.size())))
        })
        .collect()
}

fn functions(file: &ElfFile64<'_>, base: u64) -> BTreeMap<u64, String> {
    let all = file.symbols().chain(file.dynamic_symbols());
    all.filter(|symbol| symbol.kind() == object::SymbolKind::Text)
        .filter_map(|symbol| {
            Some((base.wrapping_add(symbol.address()), symbol.name().ok()?.to_string()))
        })
        .collect()
}

/// The executable bytes, as loaded. Several segments become one range.
fn text(layout: &Layout, image: &Image) -> Result<(Vec<u8>, u64), ObjectError> {
    let start = layout.executable.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let end = layout.executable.iter().map(|(start, size)| start + size).max().unwrap_or(0);
    let size = end - start;
    if size > MAX_CODE_BYTES {
        return Err(malformed(format!("{size} bytes of machine code")));
    }
    let mut bytes = vec![0; size as usize];
    image.memory.read(image.base + start, &mut bytes).map_err(malformed)?;
    Ok((bytes, image.base + start))
}

fn metadata(file: &ElfFile64<'_>) -> Result<Metadata, ObjectError> {
    let endian = Endianness::Little;
    for header in file.elf_program_headers() {
        let Ok(Some(mut notes)) = header.notes(endian, file.data()) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"AMDGPU" && note.n_type(endian).0 == METADATA_NOTE {
                return rmp_serde::from_slice(note.desc())
                    .map_err(|error| malformed(format!("its metadata: {error}")));
            }
        }
    }
    Err(malformed("it has no metadata note"))
}

fn kernel(
    entry: KernelMetadata,
    symbols: &BTreeMap<String, (u64, u64)>,
    code: &Arc<Code>,
    memory: &Memory,
) -> Result<Kernel, ObjectError> {
    let missing = || malformed(format!("kernel {} has no descriptor", entry.name));
    let (descriptor_address, size) = *symbols.get(&entry.symbol).ok_or_else(missing)?;
    if size < DESCRIPTOR_BYTES as u64 {
        return Err(missing());
    }
    let mut bytes = [0; DESCRIPTOR_BYTES];
    memory.read(descriptor_address, &mut bytes).map_err(malformed)?;
    let descriptor = Descriptor::parse(&bytes);
    let lanes = if code.chip.is_cdna() || !descriptor.property(10) { 64 } else { 32 };
    if entry.lanes != 0 && entry.lanes != lanes {
        let name = &entry.name;
        return Err(malformed(format!("kernel {name} contradicts itself about its wave width")));
    }
    let (vgprs, agprs) = descriptor.vector_registers(code.chip, lanes);
    let preloaded = if descriptor.preload_dwords > 0 { PRELOAD_ENTRY } else { 0 };
    let entry_address = descriptor_address.wrapping_add(descriptor.entry_offset as u64);
    Ok(Kernel {
        name: entry.name,
        chip: code.chip,
        descriptor,
        descriptor_address,
        entry: entry_address.wrapping_add(preloaded),
        kernarg_size: entry.kernarg_size.max(descriptor.kernarg_size),
        arguments: entry.arguments,
        lds_bytes: descriptor.lds_bytes,
        scratch_bytes: descriptor.private_bytes(),
        vgprs,
        agprs,
        sgprs: entry.sgprs,
        vgpr_spills: entry.vgpr_spills,
        sgpr_spills: entry.sgpr_spills,
        lanes,
        max_workgroup_size: match entry.max_workgroup_size {
            0 => 1024,
            size => size.min(1024),
        },
        code: code.clone(),
    })
}

/// File and line of an offset in the image.
fn source_line(elf: &[u8], offset: u64) -> Option<String> {
    use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian};
    use object::ObjectSection;
    let file = ElfFile64::<Endianness>::parse(elf).ok()?;
    let section = |id: addr2line::gimli::SectionId| {
        let data = file.section_by_name(id.name()).and_then(|section| section.data().ok());
        Ok::<_, ()>(EndianSlice::new(data.unwrap_or(&[]), LittleEndian))
    };
    let context = addr2line::Context::from_dwarf(Dwarf::load(section).ok()?).ok()?;
    let location = context.find_location(offset).ok()??;
    Some(format!("{}:{}", location.file?, location.line?))
}
