//! The number that the first sector of a deployment gets at least.

use super::error::NodeError;

/// `<repo>/sectorid`, as the distributed miner has it: a number that is greater than all sectors' at the first deployment.
pub(in crate::node) fn first_deployment(repo: &std::path::Path) -> Result<Option<u64>, NodeError> {
    let path = repo.join("sectorid");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(NodeError::Repo { path, why: e.to_string() }),
    };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            let why = format!("{:?} is no sector number: write one that is greater than every sector's", text.trim());
            Err(NodeError::Repo { path, why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectorid_file_is_a_number_or_refused() {
        let repo = tempfile::tempdir().unwrap();
        let read = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(repo.path().join("sectorid"), text).unwrap();
            }
            first_deployment(repo.path()).map_err(|e| e.to_string())
        };
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some("1200\n")), Ok(Some(1200)));
        let refused = read(Some("many")).unwrap_err();
        assert!(refused.contains("sectorid") && refused.contains("greater than every sector's"), "{refused}");
    }
}
