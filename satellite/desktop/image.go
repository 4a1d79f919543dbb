package desktop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"verdecmd/settings"
)

// ConfigName is the file of a desktop's directory that describes it.
const ConfigName = "desktop.conf"

// maxConfig is the largest desktop.conf that is read, in bytes.
const maxConfig = 64 << 10

// Names of the settings in desktop.conf.
const (
	confOS       = "WIN4_OS"
	confMemory   = "WIN4_MEMORY"
	confCPUs     = "WIN4_CPUS"
	confAgent    = "WIN4_AGENT"
	confDisk     = "WIN4_DISK"
	confKernel   = "WIN4_KERNEL"
	confInitrd   = "WIN4_INITRD"
	confAppend   = "WIN4_APPEND"
	confRequires = "WIN4_REQUIRES"
	confAvoid    = "WIN4_AVOID"
)

// ConfigTable declares the settings of desktop.conf.
func ConfigTable() settings.Table {
	return settings.Table{
		{Name: confOS, Kind: settings.Choice, Default: "linux", Choices: []string{"linux", "windows"}, Scope: settings.Satellite,
			Text: "The guest's operating system: decides the clock and the devices."},
		{Name: confMemory, Kind: settings.MiB, Default: "2048", Min: 32, Max: 1 << 20, Scope: settings.Satellite,
			Text: "Memory of the guest."},
		{Name: confCPUs, Kind: settings.Integer, Default: "1", Min: 1, Max: 128, Scope: settings.Satellite,
			Text: "Processors of the guest."},
		{Name: confAgent, Kind: settings.Bool, Default: "yes", Scope: settings.Satellite,
			Text: "Whether the QEMU guest agent runs inside: it tells when the guest is ready and shuts it down. Without it the picture and the power button serve."},
		{Name: confDisk, Kind: settings.Text, Default: "disk.qcow2", Scope: settings.Satellite, Check: checkPlainName,
			Text: "The disk, a qcow2 file of this directory; empty for a guest that has none."},
		{Name: confKernel, Kind: settings.Text, Scope: settings.Satellite, Check: checkPlainName,
			Text: "A Linux kernel of this directory that is started directly; empty: the disk boots by itself."},
		{Name: confInitrd, Kind: settings.Text, Scope: settings.Satellite, Check: checkPlainName,
			Text: "The initial RAM disk that belongs to the kernel."},
		{Name: confAppend, Kind: settings.Text, Scope: settings.Satellite,
			Text: "The kernel's command line."},
		{Name: confRequires, Kind: settings.Words, Scope: settings.Satellite,
			Text: "Features that a server must have to run this desktop."},
		{Name: confAvoid, Kind: settings.Words, Scope: settings.Satellite,
			Text: "Features that a server must not have."},
	}
}

// checkPlainName accepts the name of a file beside desktop.conf.
func checkPlainName(value string) error {
	if value == "" {
		return nil
	}
	if strings.HasPrefix(value, ".") || strings.ContainsAny(value, "/\x00") || len(value) > 255 {
		return errors.New("wants the plain name of a file in the directory of desktop.conf, without / and without a leading dot")
	}
	return nil
}

var desktopName = regexp.MustCompile(`^[a-z0-9_-][a-z0-9._-]{0,63}$`)

// Resolve reads the desktop called name in a home directory: a directory, or a
// link to one version of a published image. Links are followed here and only
// here, so that a session keeps its version whatever is published meanwhile.
// Errors are ErrNoImage and ErrBadConfig with path, line and fix.
//
// A satellite that runs as root calls it inside User.Do: then the user gets to
// see, be it in an error text, only what the user may read.
func Resolve(home, name string) (Image, error) {
	if !desktopName.MatchString(name) {
		return Image{}, fmt.Errorf("%w: %q is no name of a desktop: 1 to 64 of a-z 0-9 . _ -, no dot at the beginning", ErrNoImage, name)
	}
	path := filepath.Join(home, name)
	dir, err := filepath.EvalSymlinks(path)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return Image{}, missing(path, err)
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Image{}, missing(path, err)
	}
	defer d.Close()

	confPath := filepath.Join(dir, ConfigName)
	f, err := openPlain(d, ConfigName)
	if err != nil {
		return Image{}, fmt.Errorf("%w: %s: %v; a desktop is a directory with a %s", ErrNoImage, confPath, err, ConfigName)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Image{}, fmt.Errorf("%w: %s: %v", ErrNoImage, confPath, err)
	}
	img, err := parseConfig(confPath, data)
	if err != nil {
		return Image{}, err
	}
	img.Name, img.Dir, img.Version = name, dir, version(dir)
	for _, file := range []struct {
		setting string
		path    *string
	}{{confDisk, &img.Disk}, {confKernel, &img.Kernel}, {confInitrd, &img.Initrd}} {
		if *file.path == "" {
			continue
		}
		p := filepath.Join(dir, *file.path)
		f, err := openPlain(d, *file.path)
		if err != nil {
			return Image{}, fmt.Errorf("%w: %s: %v; it is the %s of %s", ErrNoImage, p, err, file.setting, confPath)
		}
		f.Close()
		*file.path = p
	}
	return img, nil
}

// parseConfig reads the bytes of a desktop.conf. File names stay as written.
func parseConfig(path string, data []byte) (Image, error) {
	if len(data) > maxConfig {
		return Image{}, fmt.Errorf("%w: %s: larger than %d bytes", ErrBadConfig, path, maxConfig)
	}
	v, err := settings.ParseTable(path, data, ConfigTable())
	if err != nil {
		return Image{}, fmt.Errorf("%w: %v", ErrBadConfig, err)
	}
	img := Image{
		OS: v.Raw(confOS), MemoryMiB: v.MiB(confMemory), CPUs: v.Int(confCPUs), Agent: v.Bool(confAgent),
		Disk: v.Raw(confDisk), Kernel: v.Raw(confKernel), Initrd: v.Raw(confInitrd), Append: v.Raw(confAppend),
		Requires: v.Words(confRequires), Avoid: v.Words(confAvoid),
	}
	bad := func(setting, text string) (Image, error) {
		return Image{}, fmt.Errorf("%w: %s: %s: %s", ErrBadConfig, v.Where(setting), setting, text)
	}
	switch {
	case img.Kernel == "" && img.Initrd != "":
		return bad(confInitrd, "there is no WIN4_KERNEL that it could belong to")
	case img.Kernel == "" && img.Append != "":
		return bad(confAppend, "there is no WIN4_KERNEL that it could be given to")
	case img.Kernel == "" && img.Disk == "":
		return bad(confDisk, "neither a disk nor a WIN4_KERNEL: there is nothing to boot")
	}
	return img, nil
}

// openPlain opens a regular file of the directory d for reading. It follows no
// link and waits for nothing.
func openPlain(d *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, errors.New("is a link, put the file itself there")
	case err != nil:
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, errors.New("is not a regular file"))
	}
	return f, nil
}

// version is the n of a directory win4.d/n, else 0.
func version(dir string) int {
	n, err := strconv.ParseUint(filepath.Base(dir), 10, 31)
	if err != nil || !strings.HasSuffix(filepath.Base(filepath.Dir(dir)), ".d") {
		return 0
	}
	return int(n)
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if link, lerr := os.Readlink(path); lerr == nil {
			return fmt.Errorf("%w: %s is a link to %s, which does not exist", ErrNoImage, path, link)
		}
		return fmt.Errorf("%w: %s does not exist; make it a link to a published desktop, for example: ln -s ~publisher/win4 %s", ErrNoImage, path, path)
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without a second path
	}
	return fmt.Errorf("%w: %s: %v", ErrNoImage, path, err)
}
