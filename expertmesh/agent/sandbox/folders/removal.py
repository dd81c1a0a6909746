"""How is a folder removed that a hostile program has filled?"""

import os
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder however deep it is, and whatever its owner may do in it.

    shutil.rmtree would follow a tree of ten thousand levels with as many calls. Here folders are
    first moved up. Raises OSError.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        moved, unique = 0, os.urandom(8).hex()
        while names := os.listdir(top):
            for name in names:
                if not _is_folder(name, top):
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    for child in os.listdir(inner):
                        if _is_folder(child, inner):
                            os.chmod(child, 0o700, dir_fd=inner)  # or it cannot be moved
                            moved += 1
                            new = f"{unique}-{moved}"
                            os.rename(child, new, src_dir_fd=inner, dst_dir_fd=top)
                        else:
                            os.unlink(child, dir_fd=inner)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _is_folder(name: str, parent: int) -> bool:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return (status.st_mode & 0o170000) == 0o040000
