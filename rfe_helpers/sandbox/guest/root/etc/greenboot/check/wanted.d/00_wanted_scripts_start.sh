#!/bin/sh
echo "Running greenboot Wanted Health Check Scripts"
