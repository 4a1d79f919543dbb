package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// newSuffix marks files that are not yet a database. A crash can leave one; it
// is never opened and removed at the next start.
const newSuffix = ".new-"

// create makes an empty database under another name, syncs it and only then
// gives it its own: a crash during bbolt's first writes can leave a file that
// nothing can open. It does not replace a file that somebody else has made.
func create(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix+"*") // mode 0600
	if err != nil {
		return err
	}
	temp := f.Name()
	defer os.Remove(temp)
	f.Close()
	err = guard(func() error {
		db, err := bbolt.Open(temp, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			rows, err := tx.CreateBucket(topBucketName)
			if err != nil {
				return err
			}
			return rows.Put(headRow, seal(headRow, head{}.encode()))
		})
		// Once more, so that neither meta page is bbolt's very first one, which
		// names a free list.
		if err == nil {
			err = db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(topBucketName).Put(headRow, seal(headRow, head{}.encode()))
			})
		}
		return errors.Join(err, db.Close())
	})
	if err != nil {
		return noSpace(err)
	}
	return place(temp, path)
}

// place syncs a finished file and gives it its name, which must be free.
func place(temp, path string) error {
	if err := syncFile(temp); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		return err
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	return syncFile(filepath.Dir(path))
}

// MakeDir makes a directory and those above it, mode 0700, so that a power cut
// does not take it away again with what is in it. One that is there is left as
// it is.
func MakeDir(dir string) error {
	var above []string
	for at := filepath.Clean(dir); !exists(at); at = filepath.Dir(at) {
		above = append(above, filepath.Dir(at))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range above {
		if err := syncFile(d); err != nil {
			return err
		}
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes what crashed attempts left. The caller has the database's
// lock, and it exists, so nobody else is about to make it.
func sweep(path string) {
	left, _ := filepath.Glob(escape(path) + newSuffix + "*")
	for _, f := range left {
		os.Remove(f)
	}
}

// escape makes a path match itself alone in a glob pattern.
func escape(path string) string {
	var b []byte
	for i := range len(path) {
		if c := path[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// remote are the file systems on which a lock or a memory map is not the same
// for all hosts, by the number that statfs gives.
var remote = map[uint32]string{
	0x6969: "NFS", 0xff534d42: "CIFS", 0xfe534d42: "SMB", 0x517b: "SMB", 0x7461636f: "OCFS2", 0x01161970: "GFS2",
	0x00c36400: "Ceph", 0x01021997: "9p", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x5346414f: "AFS", 0x6b414653: "AFS",
	0x73757245: "Coda", 0x564c: "NCP", 0x65735546: "FUSE", 0x19830326: "FhGFS", 0x786f4256: "a shared folder of VirtualBox",
}

// localOnly refuses directories on a network or cluster file system.
func localOnly(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("directory of the database: %w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	}
	return local(dir, uint32(st.Type))
}

func local(dir string, kind uint32) error {
	if name, ok := remote[kind]; ok {
		return fmt.Errorf("the database cannot be in %s, which is on %s: locks and memory maps do not hold there; use a directory on a local disk", dir, name)
	}
	return nil
}
