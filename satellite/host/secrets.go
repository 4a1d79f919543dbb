package host

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// measureKeys looks at the files that nobody else may read, as far as they are
// there (V-32), and at the settings, which nobody else may write.
func measureKeys(v *settings.Values) ([]Secret, error) {
	pki := settings.PKI(v)
	paths := []string{filepath.Join(pki, wire.IdentityFile), filepath.Join(settings.MasterDir(v), "verdecmd.db")}
	// While one authority takes the place of another there are several.
	authorities, err := filepath.Glob(filepath.Join(pki, "ca*.key"))
	if err != nil {
		return nil, err
	}
	paths = append(paths, authorities...)
	if own := PKI(v); own != pki {
		paths = append(paths, filepath.Join(own, wire.IdentityFile))
	}
	out := []Secret{}
	for i, path := range append(paths, v.Path()) {
		s := Secret{Path: path, Mask: 0o077}
		if i == len(paths) {
			s.Mask = 0o022
		}
		var st unix.Stat_t
		switch err := unix.Stat(path, &st); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		s.Mode, s.UID = st.Mode&0o777, st.Uid
		out = append(out, s)
	}
	return out, nil
}
