package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Lists of devices and of their shares are separated by slashes, as llama-bench
// has them, or by commas.
func splitList(text string) []string { return strings.Split(strings.ReplaceAll(text, "/", ","), ",") }

// devicesFlag is a list of devices by their names.
type devicesFlag []string

func (d *devicesFlag) Type() string   { return "devices" }
func (d *devicesFlag) String() string { return strings.Join(*d, "/") }

func (d *devicesFlag) Set(text string) error {
	names := splitList(text)
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("%q has a device without a name", text)
		}
		for _, before := range names[:i] {
			if before == name {
				return fmt.Errorf("device %s is named twice", name)
			}
		}
	}
	*d = names
	return nil
}

// sharesFlag is the share of a model for each of several devices.
type sharesFlag []float32

func (s *sharesFlag) Type() string { return "shares" }

func (s *sharesFlag) String() string {
	parts := make([]string, len(*s))
	for i, share := range *s {
		parts[i] = strconv.FormatFloat(float64(share), 'g', -1, 32)
	}
	return strings.Join(parts, "/")
}

func (s *sharesFlag) Set(text string) error {
	var shares []float32
	var sum float64
	for _, part := range splitList(text) {
		share, err := strconv.ParseFloat(part, 32)
		switch {
		case err != nil || math.IsNaN(share) || math.IsInf(share, 0):
			return fmt.Errorf("%q is not a number", part)
		case share < 0:
			return fmt.Errorf("%s is negative", part)
		}
		shares, sum = append(shares, float32(share)), sum+share
	}
	if sum == 0 {
		return errors.New("every share is 0")
	}
	*s = shares
	return nil
}
