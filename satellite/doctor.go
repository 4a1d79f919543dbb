package satellite

import (
	"context"
	"os"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop/qemu"
	"verdecmd/satellite/host"
	"verdecmd/settings"
)

// ExitError ends the program with an exit code of its own, without a word.
type ExitError = host.ExitError

// probe returns what the checks of a host ask the hypervisor with.
func probe(v *settings.Values) func(context.Context) host.Probe {
	return func(ctx context.Context) host.Probe {
		// It prepares no overlay, so any directory will do.
		d, err := qemu.New(qemu.Config{Binary: v.String(settings.QEMU), Accel: v.String(settings.Accel), AsRoot: os.Geteuid() == 0,
			PreparedDir: os.TempDir(), Log: zerolog.Nop()})
		if err != nil {
			return host.Probe{Why: err.Error()}
		}
		return probed(ctx, d)
	}
}

// probed is what a hypervisor can do here.
func probed(ctx context.Context, d *qemu.Driver) host.Probe {
	p := d.Probe(ctx)
	out := host.Probe{Accelerator: p.Accel, Why: p.Why + ", " + kernel(), Version: p.Version, Problems: p.Programs}
	if p.Accel != "" && p.Version != "" {
		if err := d.Try(ctx); err != nil {
			out.Failed = err.Error()
		}
	}
	if p.Accel == "kvm" {
		var err error
		if out.Device, err = d.Device(); err != nil {
			out.DeviceFault = err.Error()
		}
	}
	return out
}

// checks returns what makes the checks of this host while the satellite runs.
func checks(v *settings.Values, creds *wire.Credentials, version string, driver *qemu.Driver, log zerolog.Logger) func(context.Context, func() (bool, <-chan struct{})) error {
	return func(ctx context.Context, linked func() (bool, <-chan struct{})) error {
		return host.NewKeeper(host.KeeperConfig{
			Doctor: host.DoctorConfig{Settings: v, Version: version, Credentials: creds, Holder: host.Self(),
				Probe: func(ctx context.Context) host.Probe { return probed(ctx, driver) }},
			Linked: linked, Log: log.With().Str("part", "checks").Logger(),
		}).Run(ctx)
	}
}

// kernel names the kernel, whose part in virtualisation is not always the same
// (V-11).
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "kernel not known"
	}
	return "kernel " + unix.ByteSliceToString(u.Release[:])
}
