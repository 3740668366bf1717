//! What a value of the registry is without what the converter added.

/// A list of folders, separated by `;`, without those of `folders`.
pub fn without_folders(list: &str, folders: &[String]) -> String {
    let same = |a: &str, b: &str| a.trim().trim_end_matches('\\').eq_ignore_ascii_case(b.trim().trim_end_matches('\\'));
    let kept = list.split(';').filter(|folder| !folders.iter().any(|gone| same(gone, folder)));
    kept.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_goes() {
        let old = r"%SystemRoot%\inf;C:\Vendor;%ProgramFiles%\vconverter\firstboot\drivers\";
        let folders = [r"%programfiles%\vconverter\firstboot\drivers".to_owned()];
        assert_eq!(without_folders(old, &folders), r"%SystemRoot%\inf;C:\Vendor");
        assert_eq!(without_folders(old, &[]), old);
    }
}
