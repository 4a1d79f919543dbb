package master

import "testing"

// Row A: however few files the program may have open, strangers at the port
// leave some of them to the database and the administrators.
func TestConnections(t *testing.T) {
	tests := map[string]struct {
		files uint64
		want  int
	}{
		"plenty":          {1 << 20, maxConnections},
		"just enough":     {maxConnections + keptFiles, maxConnections},
		"of a small host": {4096, 4096 - keptFiles},
		"the old default": {1024, 512},
		"hardly any":      {256, 128},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := connections(tt.files); got != tt.want {
				t.Errorf("%d files: %d connections, want %d", tt.files, got, tt.want)
			}
		})
	}
}
