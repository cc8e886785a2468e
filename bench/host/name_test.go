package host

import "testing"

// A CPU whose name does not tell its model is named with vendor, family, model number
// and stepping.
func TestName(t *testing.T) {
	family, model, stepping := 25, 17, 1
	const id = " (AuthenticAMD family 25 model 17 stepping 1)"
	for name, want := range map[string]string{
		"AMD EPYC":                                   id,
		"AMD EPYC Processor":                         id,
		"AMD EPYC-Milan-v2 Processor":                id,
		"Intel(R) Xeon(R) Processor":                 id,
		"Intel(R) Xeon(R) CPU @ 2.20GHz":             id,
		"Intel Xeon Processor (Skylake, IBRS)":       id,
		"Intel Xeon E312xx (Sandy Bridge)":           id,
		"QEMU Virtual CPU version 2.5+":              id,
		"Common KVM processor":                       id,
		"AMD EPYC 7B13":                              "",
		"AMD EPYC 9R14":                              "",
		"AMD EPYC 9654 96-Core Processor":            "",
		"AMD Ryzen 7 5800X 8-Core Processor":         "",
		"Intel(R) Xeon(R) Platinum 8488C":            "",
		"Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz":  "",
		"Intel(R) Core(TM) Ultra 7 155H":             "",
		"12th Gen Intel(R) Core(TM) i3-1215U":        "",
		"Intel(R) N100":                              "",
		"Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz":   "",
		"Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz":   "",
		"AMD Ryzen AI 9 HX 370 w/ Radeon 890M":       "",
		"Intel(R) Xeon(R) CPU D-1541 @ 2.10GHz":      "",
		"AMD EPYC 7282 16-Core Processor (engineer)": "",
	} {
		c := CPU{Model: name, Vendor: "AuthenticAMD", Family: &family, ModelNumber: &model, Stepping: &stepping}
		if got := c.Name(); got != name+want {
			t.Errorf("%q, want %q", got, name+want)
		}
	}
	for _, tt := range []struct {
		cpu  CPU
		want string
	}{
		{CPU{Model: "AMD EPYC"}, "AMD EPYC"}, // nothing else is known
		{CPU{Model: "Arm Neoverse-N1"}, "Arm Neoverse-N1"},
		{CPU{Vendor: "AuthenticAMD", Family: &family, ModelNumber: &model}, "(AuthenticAMD family 25 model 17)"},
		{CPU{}, ""},
	} {
		if got := tt.cpu.Name(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
