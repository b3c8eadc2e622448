//! Archives for tests, header by header, right ones and wrong ones.

/// An archive under construction, in GNU's dialect with pax headers where they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    pax: Vec<u8>,
    owner: (u32, u32),
    mode: Option<u32>,
    mtime: u64,
    device: (u32, u32),
}

#[allow(dead_code, reason = "each file that has this module uses a part of it")]
impl Archive {
    pub fn new() -> Archive {
        Archive { mtime: 1_000_000_000, ..Archive::default() }
    }

    /// A pax record for the next entry.
    pub fn pax(mut self, key: &str, value: &[u8]) -> Archive {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
        self.pax.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.pax.extend_from_slice(value);
        self.pax.push(b'\n');
        self
    }

    pub fn xattr(self, name: &str, value: &[u8]) -> Archive {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// For the next entry.
    pub fn owner(mut self, uid: u32, gid: u32) -> Archive {
        self.owner = (uid, gid);
        self
    }

    /// For the next entry.
    pub fn mode(mut self, mode: u32) -> Archive {
        self.mode = Some(mode);
        self
    }

    /// For all that follow.
    pub fn mtime(mut self, mtime: u64) -> Archive {
        self.mtime = mtime;
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Archive {
        self.entry(name, b'0', "", data)
    }

    pub fn directory(self, name: &str) -> Archive {
        self.entry(name, b'5', "", b"")
    }

    pub fn symlink(self, name: &str, to: &str) -> Archive {
        self.entry(name, b'2', to, b"")
    }

    pub fn hard_link(self, name: &str, to: &str) -> Archive {
        self.entry(name, b'1', to, b"")
    }

    pub fn fifo(self, name: &str) -> Archive {
        self.entry(name, b'6', "", b"")
    }

    pub fn device(mut self, name: &str, kind: u8, major: u32, minor: u32) -> Archive {
        self.device = (major, minor);
        self.entry(name, kind, "", b"")
    }

    /// Any entry; long names and links go into GNU's extended headers.
    pub fn entry(mut self, name: &str, kind: u8, link: &str, data: &[u8]) -> Archive {
        if !self.pax.is_empty() {
            let pax = std::mem::take(&mut self.pax);
            self.header("pax", b'x', "", pax.len(), 0o644, (0, 0));
            self.data(&pax);
        }
        for (text, kind) in [(name, b'L'), (link, b'K')] {
            if text.len() > 100 {
                self.header("././@LongLink", kind, "", text.len() + 1, 0o644, (0, 0));
                self.data(format!("{text}\0").as_bytes());
            }
        }
        let (owner, device) = (std::mem::take(&mut self.owner), std::mem::take(&mut self.device));
        let mode = self.mode.take().unwrap_or(if kind == b'5' { 0o755 } else { 0o644 });
        let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
        let (name, link) = (cut(name), cut(link));
        self.raw(&name, kind, &link, data.len(), mode, owner, device);
        self.data(data);
        self
    }

    fn header(&mut self, name: &str, kind: u8, link: &str, size: usize, mode: u32, owner: (u32, u32)) {
        self.raw(name.as_bytes(), kind, link.as_bytes(), size, mode, owner, (0, 0));
    }

    #[allow(clippy::too_many_arguments, reason = "a header has as many fields")]
    fn raw(
        &mut self,
        name: &[u8],
        kind: u8,
        link: &[u8],
        size: usize,
        mode: u32,
        owner: (u32, u32),
        device: (u32, u32),
    ) {
        let mut block = [0; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, name);
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, format!("{:07o}\0", owner.0).as_bytes());
        put(116, format!("{:07o}\0", owner.1).as_bytes());
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link);
        put(257, b"ustar  \0");
        put(329, format!("{:07o}\0", device.0).as_bytes());
        put(337, format!("{:07o}\0", device.1).as_bytes());
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
    }

    fn data(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        let length = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(length, 0);
    }

    /// Bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Archive {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The whole, with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
