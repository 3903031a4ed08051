#!/bin/sh
echo "Running greenboot Required Health Check Scripts"
