# SPDX-License-Identifier: GPL-2.0
# As `make menuconfig` would set them, for Makefiles and for C (include/linux/kconfig.h).

CONFIG_IOMMUFD := m
CONFIG_VFIO_DEVICE_CDEV := y

ccflags-y += -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_IOMMUFD_DRIVER_CORE=1
ccflags-y += -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
