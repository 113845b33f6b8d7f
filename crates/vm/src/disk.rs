//! A guest whose root file system is a disk's, with systemd on it.
//!
//! The initramfs only brings the guest there: it loads what the disk needs, mounts it, puts the trial's files and a unit that
//! runs the steps into memory file systems above it, and starts the system. So nothing of a trial is in the image.

use crate::error::VmError;
use crate::initramfs::Initramfs;
use kmend_kernel::{KernelError, ModuleTree, Packing};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// What an ext4 file system on a virtio disk may need, where it is no part of the image.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// A disk with a Linux system that systemd starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image, qcow2: an ext4 file system without partitions. It is written to.
    pub image: PathBuf,
    /// The modules of the kernel that is booted, `…/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

/// Mounts the disk and all that is put above it. `/run` and `/kmend` are memory: systemd leaves what is mounted as it is.
const SWITCH: &str = "\
# A disk is found by another thread of the kernel.
tries=0
until [ -b /dev/vda ] || [ $tries = 100 ]; do usleep 100000; tries=$((tries + 1)); done
mount -t ext4 /dev/vda /root || poweroff -f
mkdir -p /root/kmend /root/run
mount -t tmpfs -o mode=755 kmend /root/kmend
mount -t tmpfs -o mode=755 run /root/run
cp -a /kmend/. /root/kmend/
wants=/root/run/systemd/system/multi-user.target.wants
mkdir -p $wants
cp /kmend/trial.service /root/run/systemd/system/kmend-trial.service
ln -s ../kmend-trial.service $wants/kmend-trial.service
mount --move /dev /root/dev
umount /sys /proc
exec switch_root /root /sbin/init
";

/// The unit: it runs when the system is up, and nothing that the steps print is the unit's.
const UNIT: &str = "\
[Unit]
Description=Steps of a kmend trial
After=basic.target systemd-user-sessions.service

[Service]
Type=idle
ExecStart=/bin/sh /kmend/trial
StandardInput=null
TimeoutStopSec=5
";

impl Disk {
    /// Makes the initramfs one that goes on to the disk; `script` runs the steps there.
    pub(crate) fn add_to(&self, initramfs: &mut Initramfs, script: &str) -> Result<(), VmError> {
        let mut init = String::from(
            "#!/bin/sh\nexport PATH=/bin\n/bin/busybox mkdir -p /proc /sys /dev /root /kmend\n\
             /bin/busybox mount -t proc proc /proc\n/bin/busybox --install -s /bin\n\
             mount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n",
        );
        for (number, driver) in self.drivers()?.iter().enumerate() {
            initramfs.add_file(&format!("/drivers/{number}.ko"), 0o644, driver)?;
            // Writing to a String cannot fail.
            let _ = writeln!(init, "insmod /drivers/{number}.ko");
        }
        init.push_str(SWITCH);
        initramfs.add_file("/kmend/trial", 0o755, script.as_bytes())?;
        initramfs.add_file("/kmend/trial.service", 0o644, UNIT.as_bytes())?;
        initramfs.add_file("/init", 0o755, init.as_bytes())
    }

    /// The drivers that are modules, in the order in which they are loaded, unpacked.
    fn drivers(&self) -> Result<Vec<Vec<u8>>, VmError> {
        let tree = ModuleTree::open(&self.modules)?;
        let modules = DRIVERS.iter().filter(|name| tree.path_of(name).is_some());
        let names: Vec<String> = modules.map(|name| (*name).to_owned()).collect();
        let unpack = |path: PathBuf| {
            let bytes = fs::read(&path).map_err(VmError::io(&path))?;
            match Packing::detect(&bytes) {
                Some(packing) => packing.unpack(&bytes).map_err(|why| {
                    let source = Box::new(KernelError::Module(why));
                    KernelError::File { path: path.clone(), source }.into()
                }),
                None => Ok(bytes),
            }
        };
        tree.load_order_of(&names)?.into_iter().map(unpack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_modules_the_drivers_are_taken_for_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk { image: "disk.qcow2".into(), modules: folder.path().to_owned() };
        let mut initramfs = Initramfs::new();
        disk.add_to(&mut initramfs, "exit\n").unwrap();
        for path in ["/init", "/kmend/trial", "/kmend/trial.service"] {
            assert!(initramfs.contains(path), "{path}");
        }
        let damaged = folder.path().join("kernel/virtio_blk.ko");
        fs::create_dir_all(damaged.parent().unwrap()).unwrap();
        fs::write(&damaged, b"\x7fELF no module").unwrap();
        assert!(disk.add_to(&mut Initramfs::new(), "exit\n").is_err());
    }
}
