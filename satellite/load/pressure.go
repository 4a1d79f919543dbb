package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// parsePressure reads the share of time in which some process waited, averaged
// over 10 s, from a file of /proc/pressure, for example
//
//	some avg10=1.53 avg60=0.87 avg300=0.73 total=123
//
// where the numbers are percent.
func parsePressure(data []byte) (float64, error) {
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "some" {
			continue
		}
		for _, field := range fields[1:] {
			if text, ok := bytes.CutPrefix(field, []byte("avg10=")); ok {
				percent, err := strconv.ParseFloat(string(text), 64)
				if err != nil || !(percent >= 0 && percent <= 1000) {
					return 0, fmt.Errorf("avg10 is %.20q, not a percentage", text)
				}
				return share(percent / 100), nil
			}
		}
	}
	return 0, fmt.Errorf("no line with some and avg10 in %.60q", data)
}
