package host

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The lines around what is managed in a file of others. The second form of the
// first one tells that the line above had no end when the block was put there.
const (
	blockBegin     = "# BEGIN verdecmd: keys of the cluster's servers; all down to END is replaced"
	blockBeginOpen = "# BEGIN verdecmd: keys of the cluster's servers; all down to END is replaced, and the end of the line above"
	blockEnd       = "# END verdecmd"
)

// errTorn refuses to touch a file.
var errTorn = errors.New(`the lines "# BEGIN verdecmd..." and "# END verdecmd" are not there in pairs, so nobody knows which lines between them are whose: remove them and the keys of the cluster; the block is written anew then`)

// block is where a managed block stands in a file.
type block struct {
	begin, end int
	open       bool // the line above had no end
}

// blocks finds the managed blocks of a file: one, unless it was copied over
// itself.
func blocks(file []byte) (all []block, err error) {
	begin, open, at := -1, false, 0
	for line := range bytes.Lines(file) {
		switch text := strings.TrimRight(string(line), " \t\r\n"); text { // editors change how lines end
		case blockBegin, blockBeginOpen:
			if begin >= 0 {
				return nil, errTorn
			}
			begin, open = at, text == blockBeginOpen
		case blockEnd:
			if begin < 0 {
				return nil, errTorn
			}
			all = append(all, block{begin, at + len(line), open})
			begin = -1
		}
		at += len(line)
	}
	if begin >= 0 {
		return nil, errTorn
	}
	return all, nil
}

// SetBlock returns file with these lines as its managed block, or without one
// where there are no lines. All other bytes stay what they are, in their order:
// to put a block there and to take it away gives the file back. A block that is
// there keeps its place, further ones go.
func SetBlock(file []byte, lines []string) ([]byte, error) {
	for _, l := range lines {
		if b, err := blocks([]byte(l)); strings.ContainsAny(l, "\n\r\x00") || len(b) > 0 || err != nil {
			return nil, fmt.Errorf("%.60q cannot stand in a managed block", l)
		}
	}
	all, err := blocks(file)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		if len(lines) == 0 {
			return file, nil
		}
		all = []block{{len(file), len(file), len(file) > 0 && file[len(file)-1] != '\n'}}
		if all[0].open {
			file = append(slices.Clip(file), '\n')
			all[0].begin, all[0].end = len(file), len(file)
		}
	}
	var out bytes.Buffer
	at := 0
	for i, b := range all {
		out.Write(file[at:b.begin])
		at = b.end
		if i == 0 && len(lines) > 0 {
			out.WriteString(blockText(b.open, lines))
		} else if b.open && b.end == len(file) { // and nobody has written behind it
			out.Truncate(len(bytes.TrimSuffix(out.Bytes(), []byte("\n"))))
		}
	}
	out.Write(file[at:])
	return out.Bytes(), nil
}

// blockText is a block with its marking lines.
func blockText(open bool, lines []string) string {
	begin := blockBegin
	if open {
		begin = blockBeginOpen
	}
	return begin + "\n" + strings.Join(lines, "\n") + "\n" + blockEnd + "\n"
}
