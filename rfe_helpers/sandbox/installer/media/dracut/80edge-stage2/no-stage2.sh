#!/bin/sh
# shellcheck disable=SC2154  # set by find-stage2.sh, in the same shell
stage2_failed "no boot medium $stage2_device (from inst.stage2=)"
