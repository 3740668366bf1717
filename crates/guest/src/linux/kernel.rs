//! Which kernel the guest will boot, and where its initramfs lies.
//!
//! In this order: the default entry of GRUB's menu, the links `vmlinuz` that Debian keeps, the newest kernel that is no
//! Xen-only and no debugging one.

use crate::linux::{grub, version};
use crate::{Error, ErrorKind, FileTree, Result};

/// Size of GRUB's environment block.
const ENVIRONMENT_SIZE: u64 = 1024;

/// A kernel with its initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootKernel {
    /// `6.1.0-32-amd64`; names its folder of modules.
    pub version: String,
    /// The kernel's file.
    pub image: String,
    /// The initramfs's file, if it has one.
    pub initramfs: Option<String>,
    /// How it was found: for the operator.
    pub chosen_by: &'static str,
}

/// The kernel that will boot.
///
/// # Errors
/// [`ErrorKind::Missing`] if there is none.
pub(crate) fn boot_kernel(tree: &dyn FileTree) -> Result<BootKernel> {
    if let Some(kernel) = from_grub(tree)? {
        return Ok(kernel);
    }
    for link in ["/boot/vmlinuz", "/vmlinuz"] {
        if let Some(target) = tree.read_link(link)?
            && let Some(kernel) = kernel(tree, &format!("/boot/{}", base(&target)), &[], "the link vmlinuz")?
        {
            return Ok(kernel);
        }
    }
    let mut versions: Vec<String> = tree
        .list("/boot")?
        .into_iter()
        .filter_map(|entry| image_version(&entry.name).map(str::to_owned))
        .filter(|version| bootable(version))
        .collect();
    versions.sort_by(|a, b| version::compare(b, a));
    for version in versions {
        for prefix in ["vmlinuz-", "vmlinux-"] {
            if let Some(kernel) = kernel(tree, &format!("/boot/{prefix}{version}"), &[], "newest kernel")? {
                return Ok(kernel);
            }
        }
    }
    Err(Error::new(ErrorKind::Missing, "no kernel in /boot"))
}

/// The default entry of GRUB's menu.
fn from_grub(tree: &dyn FileTree) -> Result<Option<BootKernel>> {
    for folder in ["/boot/grub", "/boot/grub2"] {
        let Some(text) = tree.text(&format!("{folder}/grub.cfg"))? else { continue };
        let menu = grub::parse_menu(&text);
        let environment = tree.read(&format!("{folder}/grubenv"), ENVIRONMENT_SIZE).unwrap_or_default();
        let saved = environment.and_then(|block| grub::environment_value(&block, "saved_entry"));
        let Some(entry) = grub::default_entry(&menu, saved.as_deref()) else { continue };
        let Some(image) = &entry.kernel else { continue };
        if let Some(kernel) = kernel(tree, image, &entry.initrd, "default entry of GRUB's menu")? {
            return Ok(Some(kernel));
        }
    }
    Ok(None)
}

/// The kernel at `image`, a path on the volume that holds `/boot` or on `/boot` itself; `None` if it is not there or
/// has no modules to go with it.
fn kernel(tree: &dyn FileTree, image: &str, initrd: &[String], chosen_by: &'static str) -> Result<Option<BootKernel>> {
    let Some(image) = locate(tree, image)? else { return Ok(None) };
    // A link such as /boot/vmlinuz names the version by its target.
    let named = tree.read_link(&image)?.unwrap_or_else(|| image.clone());
    let Some(version) = image_version(base(&named)).map(str::to_owned) else { return Ok(None) };
    if version.contains("..") || !tree.exists(&format!("/lib/modules/{version}"))? {
        return Ok(None);
    }
    let usual = [
        format!("/boot/initrd.img-{version}"),
        format!("/boot/initramfs-{version}.img"),
        format!("/boot/initrd-{version}"),
    ];
    let mut initramfs = None;
    // Of several files (microcode first) the last is the one with the modules.
    for path in initrd.iter().rev().chain(&usual) {
        initramfs = locate(tree, path)?;
        if initramfs.is_some() {
            break;
        }
    }
    Ok(Some(BootKernel { version, image, initramfs, chosen_by }))
}

/// A path as GRUB has it, in the tree: GRUB's `/` is the volume, which may be `/boot` itself, or a subvolume's parent.
fn locate(tree: &dyn FileTree, path: &str) -> Result<Option<String>> {
    let path = path.split_once(')').map_or(path, |(_, path)| path);
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    for candidate in [path.to_owned(), format!("/boot{path}"), format!("/boot/{}", base(path))] {
        if tree.metadata(&candidate)?.is_some_and(|metadata| metadata.kind == crate::tree::FileKind::File) {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn image_version(name: &str) -> Option<&str> {
    ["vmlinuz-", "vmlinux-", "kernel-"].iter().find_map(|prefix| name.strip_prefix(prefix)).filter(|v| !v.is_empty())
}

/// Not a kernel that only runs under Xen, nor one for debugging, nor what a rescue left behind.
fn bootable(version: &str) -> bool {
    let version = version.to_ascii_lowercase();
    !["xen", "dbg", "debug", "rescue", ".old", ".dpkg", ".bak"].iter().any(|word| version.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryTree;

    fn tree() -> MemoryTree {
        ["6.1.0-9-amd64", "6.1.0-32-amd64", "6.1.0-40-amd64-dbg"].iter().fold(MemoryTree::new(), |tree, version| {
            tree.with(&format!("/boot/vmlinuz-{version}"), "k")
                .with(&format!("/boot/initrd.img-{version}"), "i")
                .with(&format!("/lib/modules/{version}/modules.dep"), "")
        })
    }

    #[test]
    fn newest_kernel_that_can_boot_is_taken_without_a_menu() {
        let kernel = boot_kernel(&tree()).unwrap();
        assert_eq!(kernel.version, "6.1.0-32-amd64");
        assert_eq!(kernel.initramfs.as_deref(), Some("/boot/initrd.img-6.1.0-32-amd64"));
    }

    #[test]
    fn link_wins_over_newest_and_menu_over_link() {
        let tree = tree().with_link("/vmlinuz", "boot/vmlinuz-6.1.0-9-amd64");
        assert_eq!(boot_kernel(&tree).unwrap().version, "6.1.0-9-amd64");
        // On a /boot volume of its own GRUB's paths start there.
        let menu = "set default=0\nmenuentry 'x' {\n linux /vmlinuz-6.1.0-32-amd64 root=/dev/sda1\n initrd /ucode.img \
                    /initrd.img-6.1.0-32-amd64\n}\n";
        let kernel = boot_kernel(&tree.with("/boot/grub/grub.cfg", menu)).unwrap();
        assert_eq!((kernel.version.as_str(), kernel.chosen_by), ("6.1.0-32-amd64", "default entry of GRUB's menu"));
        assert_eq!(kernel.initramfs.as_deref(), Some("/boot/initrd.img-6.1.0-32-amd64"));
    }

    #[test]
    fn no_kernel_is_an_error() {
        assert_eq!(boot_kernel(&MemoryTree::new()).unwrap_err().kind, ErrorKind::Missing);
    }
}
