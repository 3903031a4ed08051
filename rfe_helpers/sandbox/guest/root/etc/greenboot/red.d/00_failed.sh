#!/bin/sh
echo "greenboot: this boot is not healthy"
